"""A round of equal clients, of whom nobody was asked for anything."""

from typing import Any

import numpy as np
import torch

from strategies.pipeline import RoundFacts


def no_server_data() -> torch.Tensor:
    raise AssertionError("nobody asked for the server's update")


def round_of(n: int, **changes: Any) -> RoundFacts:
    facts: dict[str, Any] = {
        "round_": 1,
        "clients": torch.arange(n),
        "prior": torch.full((n,), 1 / n, dtype=torch.float64),
        "losses": torch.full((n,), torch.nan, dtype=torch.float64),
        "confidences": torch.full((n,), torch.nan, dtype=torch.float64),
        "received": no_server_data,
        "layers": {},
        "server_update": no_server_data,
        "evaluate": lambda update: (0.0, 0.0),
        "respond": lambda update, n_inputs: torch.zeros(n_inputs, 2),
        "rng": np.random.default_rng(0),
    }
    return RoundFacts(**{**facts, **changes})
