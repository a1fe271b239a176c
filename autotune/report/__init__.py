"""What a run found, for people: a page for the browser and a table for the terminal."""
