"""SPECTRE: whiten a class by a robust covariance, so that what the poisons add stands out."""

import warnings

import numpy as np
import torch
from scipy.linalg import expm
from sklearn.covariance import MinCovDet

from strategies.shapes import Bool, Float, Int, Tensor


def quantum_entropy_scores(whitened: Float[Tensor, "n axes"], alpha: float) -> Float[Tensor, " n"]:
    """Return the QUE score hᵀ Q h / tr Q, Q = exp(α (Σ - I) / (‖Σ‖ - 1)), Σ the covariance.

    At α = 0 it is the squared length, as α grows the squared projection on the top axis.

    Args:
        whitened: Features whose clean part has mean 0 and covariance I.
        alpha: 4 in the paper.
    """
    points = whitened.double()
    covariance = points.T @ points / len(points)
    norm = torch.linalg.matrix_norm(covariance, 2)
    # Where nothing stands out, ‖Σ‖ is below 1, and all of Q would be 0. A factor of Q cancels.
    excess = covariance - norm.clamp_max(1) * torch.eye(points.shape[1], dtype=torch.float64)
    weights = torch.from_numpy(expm((alpha * excess / (norm - 1).clamp_min(1e-9)).numpy()))
    return ((points @ weights) * points).sum(dim=1) / weights.trace()


def spectre_scores(
    features: Float[Tensor, "n features"],
    labels: Int[Tensor, " n"],
    kept: Bool[Tensor, " n"],
    fraction: float,
    n_axes: int,
    alpha: float,
    rng: np.random.Generator,
) -> Float[Tensor, " n"]:
    """Return each example's QUE score within its class, after robust whitening.

    Args:
        features: Inputs of the output layer.
        labels: The given labels.
        kept: Which examples are scored; the others score 0.
        fraction: The assumed share ε of poisons in a class: the covariance is estimated on the
            most concentrated 1 - 2 ε of it. (The stage removes the share ε, as other filters do;
            the paper removes 1.5 ε.)
        n_axes: Principal axes that are kept. (The paper chooses their number, up to 100, and the
            one class that is attacked; here the number is given, and all classes are filtered.)
        alpha: α of the QUE score.
        rng: Draws the estimator's starts.

    References:
        Hayase et al., SPECTRE: Defending Against Backdoor Attacks Using Robust Statistics, ICML
        2021. Its robust covariance is estimated by filtering; ours is the minimum covariance
        determinant (Rousseeuw and Van Driessen, 1999).
    """
    scores = torch.zeros(len(labels), dtype=torch.float64)
    for label in labels.unique().tolist():
        rows = (kept & (labels == label)).nonzero().squeeze(1)
        if len(rows) <= 2 * n_axes:
            continue
        centred = features[rows].double()
        centred = centred - centred.mean(dim=0)
        _, values, axes = torch.linalg.svd(centred, full_matrices=False)
        rank = min(n_axes, int((values > 1e-6 * values[0]).sum()))
        if not rank:  # all alike: the units of the layer are dead
            continue
        points = (centred @ axes[:rank].T).numpy()
        support = max(1 - 2 * fraction, 0.5 + rank / len(rows))
        estimator = MinCovDet(support_fraction=support, random_state=int(rng.integers(2**31)))
        with warnings.catch_warnings():
            # It warns that determinants of refined subsets may rise a little.
            warnings.simplefilter("ignore")
            estimator.fit(points)
        lengths, turned = np.linalg.eigh(estimator.covariance_)
        scaled = (points - estimator.location_) @ turned / np.sqrt(lengths.clip(1e-12))
        scores[rows] = quantum_entropy_scores(torch.from_numpy(scaled), alpha)
    return scores
