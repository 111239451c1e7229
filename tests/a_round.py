"""A round of equal clients, of whom nobody was asked for anything."""

from typing import Any

import numpy as np

from strategies.pipeline import RoundFacts


def round_of(n: int, **changes: Any) -> RoundFacts:
    return RoundFacts.of_equals(n, **{"rng": np.random.default_rng(0), **changes})
