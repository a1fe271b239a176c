"""Searchers on recorded spaces, at recorded cost: comparisons that any laptop repeats in minutes."""
