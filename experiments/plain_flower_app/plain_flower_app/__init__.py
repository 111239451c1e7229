"""Flower's quickstart with the strategies of fl-testbed."""
