"""Figures, one per file: each takes what tables say and returns a matplotlib figure."""
