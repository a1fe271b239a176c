"""Candidates as numbers: a module an encoding."""
