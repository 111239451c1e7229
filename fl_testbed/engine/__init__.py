"""Runs scenarios: Flower grids that execute a ClientApp, the round loop, and run folders."""
