"""What compares us with peers: each module is a command that prints a table and writes JSON."""
