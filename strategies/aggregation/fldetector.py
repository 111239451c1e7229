"""FLDetector: suspect clients whose updates cannot be predicted from their last ones."""

import numpy as np
import torch

from strategies.aggregation.aggregate import Aggregate, mean_of_selected, weighted_sum
from strategies.aggregation.blocks import column_blocks
from strategies.aggregation.distances import gram_in_float64
from strategies.aggregation.traits import Traits
from strategies.memory import Memory, places, recall, remember
from strategies.shapes import Bool, Float, Int, Tensor

N_REFERENCES = 20  # uniform samples that the gap statistic compares with


@Traits(selects=True, takes_update_for_step=True)
def fldetector(
    updates: Float[Tensor, "n d"],
    clients: Int[Tensor, " n"],
    memory: Memory,
    rng: np.random.Generator,
    window: int = 10,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Average all clients but those once detected by how badly their updates are predicted.

    An honest client's update is predicted to become u_i + H Δw, with Δw the last step of the model
    and H built by L-BFGS from the last ``window`` steps and the changes of the average update. A
    client's score is the distance of its update from that prediction, divided by the sum over
    clients and averaged over the window. Once the window is full, the gap statistic is computed in
    each round until it sees more than one cluster of scores. Then 2-means splits them, the worse
    half is heard no more, and nobody else is ever detected.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        clients: Ids of the clients, shape (n,). Only those present in the last round are scored.
        memory: ``last``, the last round's updates; ``results``, the last window + 1 averages;
            ``scores``, each client's last distances; ``detected``, those heard no more.
        rng: Draws the gap statistic's references.
        window: N, in rounds; 10 in the paper and its peers.
        prior: Weights among those heard; equal by default.

    Returns:
        update: The mean of those not detected.
        weights: Equal among those heard, or in proportion to their prior; 0 for those detected.
        suspicion: The averaged scores; 0 for a client not yet scored.

    Bound:
        None: it averages all until its window is full. Nor are the honest safe: where there is no
        attacker and scores differ by chance alone, the gap statistic sees two clusters in up to one
        round of five (20 clients, evenly spread), and the first time it does, the worse half is
        dropped.

    Ties:
        Clients of equal scores are always in the same half; if all are equal, nobody is detected.

    Variants:
        The authors start the training again after a detection, without those detected; here it goes
        on. Detecting again would split the remaining clients until hardly any are left. They also
        put other rules (Krum, trimmed mean, median) in place of the mean. Their code begins at
        round 50, and its gap statistic has 10 references, here 20, and the logarithm of their mean
        in place of their mean logarithm. FLPoison's never sees a single cluster, and it detects
        anew in each round.

    References:
        Zhang et al., FLDetector: Defending Federated Learning Against Model Poisoning Attacks via
        Detecting Malicious Clients, KDD 2022.
    """
    results = memory.get("results", updates[:0]).to(updates)
    there = updates.device
    scores = recall(memory, "scores", clients, torch.nan, (window,), device=there)
    if len(results) > 1 and "last.clients" in memory:
        at, met = places(memory, "last", clients)
        last = memory["last.values"].to(updates)
        shares = _shares_of_distance(updates, last, at, met, hessian_product(results))
        scores = torch.cat([scores[:, 1:], shares[:, None]], dim=1)
    suspicion = scores.nanmean(dim=1).nan_to_num(nan=0.0)
    detected = recall(memory, "detected", clients, default=0.0, device=there) > 0
    scored = ~scores.isnan().all(dim=1)
    searching = not memory.get("detected.values", torch.zeros(1)).any()
    if len(results) > window and searching:
        found = worse_cluster(suspicion[scored], rng)
        detected[scored.nonzero()[found]] = True
    result = mean_of_selected(updates, ~detected, prior, suspicion)
    kept = remember({}, "last", clients, updates.clone())  # in the order that is searched
    kept["results"] = torch.cat([results, result.update[None]])[-window - 1 :]
    for name, values in (("scores", scores), ("detected", detected.double())):
        old = {key: value for key, value in memory.items() if key.startswith(f"{name}.")}
        kept |= remember(old, name, clients, values)
    return result._replace(memory=kept)


def hessian_product(results: Float[Tensor, "k d"]) -> Float[Tensor, " d"]:
    """Return how much an update should change after the last step, by compact L-BFGS.

    Args:
        results: The averages of past rounds. Each is also the step that the model then made, and
            its difference to the next is how the average update changed on that step.
    """
    n_steps = len(results) - 1
    largest = torch.finfo(results.dtype).max  # changes of huge updates stay finite
    changes = results.diff(dim=0).clamp_(-largest, largest)
    rows = torch.cat([results, changes])
    gram = gram_in_float64(rows)
    products = gram[:n_steps, n_steps + 1 :]
    curvature = products[-1, -1] / gram[n_steps - 1, n_steps - 1].clamp(min=1e-300)
    lower = products.tril(diagonal=-1)
    middle = torch.cat(
        [
            torch.cat([curvature * gram[:n_steps, :n_steps], lower], dim=1),
            torch.cat([lower.T, -products.diagonal().diag()], dim=1),
        ]
    )
    along = gram[:, n_steps]  # of all rows, along the last step
    sides = torch.cat([curvature * along[:n_steps], along[n_steps + 1 :]])
    # Equal steps make it singular; the least solution then leaves them out.
    inner = torch.linalg.pinv(middle, hermitian=True) @ sides
    shares = torch.cat([-curvature * inner[:n_steps], curvature[None], -inner[n_steps:]])
    return weighted_sum(rows, shares, torch.float64).to(results)


def worse_cluster(scores: Float[Tensor, " n"], rng: np.random.Generator) -> Bool[Tensor, " n"]:
    """Mark the cluster of higher scores; nobody, if the gap statistic sees one cluster only.

    It sees more than one if Gap(1) < Gap(2) - s(2), where Gap(k) is by how much the logarithm of
    the spread within k clusters falls short of that of uniform samples.
    """
    values = scores.double().cpu().numpy()
    nobody = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    if len(values) < 3 or np.ptp(values) == 0:  # two are always as far apart as can be
        return nobody
    values = (values - values.min()) / np.ptp(values)
    samples = np.vstack([values, rng.random((N_REFERENCES, len(values)))])
    one, two, borders = _spread_within(samples)
    with np.errstate(divide="ignore"):  # two clusters without any spread: a gap of infinity
        gaps_one, gaps_two = np.log(one), np.log(two)
    gap_one = gaps_one[1:].mean() - gaps_one[0]
    gap_two = gaps_two[1:].mean() - gaps_two[0]
    error = gaps_two[1:].std() * np.sqrt(1 + 1 / N_REFERENCES)
    if gap_one >= gap_two - error:
        return nobody
    return torch.from_numpy(samples[0] > borders[0]).to(scores.device)


def _spread_within(
    samples: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each row, the sum of squares within one and two clusters, and the lower one's
    border."""
    ordered = np.sort(samples, axis=1)
    n = ordered.shape[1]
    sums, squares = ordered.cumsum(axis=1), (ordered**2).cumsum(axis=1)
    counts = np.arange(1, n)
    below = squares[:, :-1] - sums[:, :-1] ** 2 / counts
    above_sums, above_squares = sums[:, -1:] - sums[:, :-1], squares[:, -1:] - squares[:, :-1]
    two = (below + above_squares - above_sums**2 / (n - counts)).clip(min=0)
    split = two.argmin(axis=1)
    rows = np.arange(len(samples))
    one = squares[:, -1] - sums[:, -1] ** 2 / n
    return one, two[rows, split], ordered[rows, split]


def _shares_of_distance(
    updates: Float[Tensor, "n d"],
    last: Float[Tensor, "m d"],
    at: Int[Tensor, " n"],
    met: Bool[Tensor, " n"],
    change: Float[Tensor, " d"],
) -> Float[Tensor, " n"]:
    """Return each row's distance to its prediction, as a share of all: last row plus change.

    NaN for clients absent from the last round.
    """
    squares = torch.zeros(len(updates), dtype=torch.float64, device=updates.device)
    for columns in column_blocks(updates):
        expected = last[:, columns][at].double() + change[columns]  # may be beyond float32
        squares += (updates[:, columns] - expected).square_().sum(dim=1)
    distances = torch.where(met.to(updates.device), squares.sqrt(), torch.nan)
    return distances / distances.nansum().clamp(min=1e-300)
