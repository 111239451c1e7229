"""Figures, one per file: each takes data from tables and returns a matplotlib figure."""
