"""Everything that happens on the server, usable in any Flower app.

``aggregation``, ``pre_aggregation`` and ``reweighting`` hold the pure rules, ``memory`` what they
carry over rounds, and ``pipeline`` composes them. ``robust`` wraps the composition as a Flower
strategy; it and ``flower_arrays`` are the only modules here that import Flower.
"""
