"""Building, running, verifying and deciding, all in worker processes of their own."""
