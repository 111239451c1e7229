"""Statistics of updates that attackers see, block by block: no second matrix."""

import torch

from strategies.aggregation.blocks import column_blocks
from strategies.shapes import Float, Tensor


def mean_and_std(
    updates: Float[Tensor, "n d"],
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Return each coordinate's mean and standard deviation (divided by n, not by n - 1)."""
    mean, std = torch.empty_like(updates[0]), torch.empty_like(updates[0])
    for columns in column_blocks(updates):
        block = updates[:, columns].double()
        mean[columns] = block.mean(dim=0)
        std[columns] = block.std(dim=0, correction=0)
    return mean, std


def offsets(
    updates: Float[Tensor, "n d"], centre: Float[Tensor, " d"], direction: Float[Tensor, " d"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return ‖uᵢ - c‖² and ⟨uᵢ - c, p⟩ of every row, in float64."""
    squared = torch.zeros(len(updates), dtype=torch.float64, device=updates.device)
    along = torch.zeros_like(squared)
    for columns in column_blocks(updates):
        block = updates[:, columns].double() - centre[columns].double()
        squared += (block * block).sum(dim=1)
        along += block @ direction[columns].double()
    return squared, along
