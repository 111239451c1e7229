"""Everything that happens on the server, usable in any Flower app.

``aggregation``, ``pre_aggregation`` and ``reweighting`` hold the pure rules, ``memory`` what they
carry over rounds, and ``pipeline`` composes them. ``robust`` wraps the composition as a Flower
strategy and ``observed`` watches any other; they and what they read replies with,
``flower_arrays``, ``update_rows`` and ``reports``, are the only modules here that import Flower.
"""
