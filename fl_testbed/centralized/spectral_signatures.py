"""Spectral signatures: poisons lie far out along the main axis of their class's features."""

import torch

from strategies.shapes import Bool, Float, Int, Tensor


def spectral_scores(
    features: Float[Tensor, "n features"], labels: Int[Tensor, " n"], kept: Bool[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return the squared projection on the top singular vector of each class's centred features.

    Args:
        features: Inputs of the output layer.
        labels: The given labels.
        kept: Which examples the axis is computed from; the others score 0.

    References:
        Tran, Li and Madry, Spectral Signatures in Backdoor Attacks, NeurIPS 2018. The paper removes
        1.5 ε n of each class for an assumed share ε of poisons.
    """
    scores = torch.zeros(len(labels), dtype=torch.float64)
    for label in labels.unique().tolist():
        own = kept & (labels == label)
        if not own.any():
            continue
        centred = features[own].double()
        centred = centred - centred.mean(dim=0)
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        scores[own] = (centred @ axes[0]).square()
    return scores
