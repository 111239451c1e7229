"""Everything that happens on the server, usable in any Flower app.

``aggregation`` and ``reweighting`` hold the pure rules, ``pipeline`` composes them, and
``robust`` wraps the composition as a Flower strategy (the only module here that imports Flower).
"""
