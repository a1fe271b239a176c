"""What can be chosen for a kernel (spaces), and who chooses (searchers)."""
