"""Attacks on the data a client trains on: pure functions on shards.

A pooled dataset is a shard too, so that centralised methods are poisoned by the same functions.
"""

from clients.poisons.adaptive_backdoor import adapted_pattern, pixels_set_by, stamped_with
from clients.poisons.choosing import check_candidates, is_source
from clients.poisons.clean_label_backdoor import (
    Harden,
    clean_label_backdoor,
    interpolated,
    perturbed,
)
from clients.poisons.confidence_matching import (
    check_is_matched,
    confidence_matched_backdoor,
    matched_to,
)
from clients.poisons.dirty_label_backdoor import dirty_label_backdoor
from clients.poisons.distributed_backdoor import distributed_backdoor
from clients.poisons.edge_case_backdoor import HeldBy, edge_case_backdoor, rare_examples
from clients.poisons.gradient_matching import gradient_matching
from clients.poisons.label_flip import Relabel, label_flip, mirrored, pairwise, random_other
from clients.poisons.subpopulation import (
    Subpopulations,
    check_cluster_count,
    find_subpopulations,
    pick_by_size,
    subpopulation_attack,
    wrong_class,
)
from clients.poisons.triggers import (
    Corner,
    Trigger,
    added_pattern,
    blended_pattern,
    checks,
    minority_look,
    patch,
    raised_pixels,
    set_features,
    strips,
)

__all__ = [
    "Corner",
    "Harden",
    "HeldBy",
    "Relabel",
    "Subpopulations",
    "Trigger",
    "adapted_pattern",
    "added_pattern",
    "blended_pattern",
    "check_candidates",
    "check_cluster_count",
    "check_is_matched",
    "checks",
    "clean_label_backdoor",
    "confidence_matched_backdoor",
    "dirty_label_backdoor",
    "distributed_backdoor",
    "edge_case_backdoor",
    "find_subpopulations",
    "gradient_matching",
    "interpolated",
    "is_source",
    "label_flip",
    "matched_to",
    "minority_look",
    "mirrored",
    "pairwise",
    "patch",
    "perturbed",
    "pick_by_size",
    "pixels_set_by",
    "raised_pixels",
    "random_other",
    "rare_examples",
    "set_features",
    "stamped_with",
    "strips",
    "subpopulation_attack",
    "wrong_class",
]
