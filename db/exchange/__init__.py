"""Records from and for other tools: each format a module, files read as far as they can be."""
