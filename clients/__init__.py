"""Everything that happens on a device, usable in any Flower app.

``shard`` says what a client holds, ``training`` trains on it, ``poisons`` change data, ``attacks``
change updates, and ``app`` wraps them as a Flower ``ClientApp`` (the only module here that imports
Flower).
"""
