"""Attacks on the data a client trains on: pure functions on shards."""

from clients.poisons.dirty_label_backdoor import dirty_label_backdoor, is_source
from clients.poisons.triggers import (
    Trigger,
    added_pattern,
    blended_pattern,
    patch,
    set_features,
)

__all__ = [
    "Trigger",
    "added_pattern",
    "blended_pattern",
    "dirty_label_backdoor",
    "is_source",
    "patch",
    "set_features",
]
