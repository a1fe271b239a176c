"""Models that predict how good candidates are, from what the database holds."""
