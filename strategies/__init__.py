"""Everything that happens on the server, usable in any Flower app.

``aggregation``, ``pre_aggregation`` and ``reweighting`` hold the pure rules, ``memory`` what these
carry from round to round, and ``pipeline`` composes them into one server step. ``robust`` wraps
that step as a Flower strategy, and ``observed`` watches any other Flower strategy. Only these two
and the modules with which they read replies, ``flower_arrays``, ``update_rows`` and ``reports``,
import Flower.
"""
