"""AlignIns: reject clients whose direction or signs are unusually badly, or well, aligned."""

import torch

from strategies.aggregation.aggregate import (
    Aggregate,
    kth_largest,
    normalised,
    norms_of,
    prior_or_uniform,
)
from strategies.aggregation.blocks import column_blocks, each_block, row_blocks
from strategies.aggregation.distances import cosines_with
from strategies.aggregation.mz_scores import BORDER, mz_scores
from strategies.aggregation.norm_clipping import mean_of_clipped
from strategies.aggregation.traits import Traits
from strategies.shapes import Float, Tensor


@Traits(selects=True)
def alignins(
    updates: Float[Tensor, "n d"],
    received: Float[Tensor, " d"],
    direction_radius: float = 1.0,
    sign_radius: float = 1.0,
    top_fraction: float = 0.3,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Average the updates near the median of two alignment measures, clipped to their median norm.

    The measures are the cosine of an update with the received model, and the share of an update's
    largest coordinates whose sign is the principal one, sign(Σ sign(update)) over clients. A client
    is judged by |measure - median|, in standard deviations over all clients. Both sides count as
    unusual: clients that agree with the others more than most do are rejected as well, and where
    clients differ by chance alone, more than half of them are rejected.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        received: The model that the updates were made from, shape (d,).
        direction_radius: λ_c, how many standard deviations from the median cosine are allowed.
        sign_radius: λ_s, how many from the median share of principal signs are allowed.
        top_fraction: The share of the coordinates, those of largest magnitude, whose signs count.
        prior: Weights among those kept; equal by default.

    Returns:
        update: The mean of the clipped updates of those kept, in proportion to their prior.
        weights: prior · clipping factor, scaled to sum 1; all 0 where nobody is kept.
        suspicion: The larger of the two distances to the median, in radii: those above 1 are
            rejected.

    Bound:
        None is checked: the medians are honest while n >= 2f + 1, but where attackers are a
        majority of those kept, the norm that clips is theirs.

    Ties:
        A client exactly at a radius is kept: of two clients, both are. Coordinates that tie for the
        last place among the largest all count in part. An update or a model of norm 0 has cosine 0;
        a coordinate whose signs sum to 0 has the principal sign 0, with which only a value of 0
        agrees. For an even number of clients, the median norm is the lower of the two middle ones.

    Variants:
        Radii of 1 and a fraction of 0.3 are those of the authors' code and BackFed. Both reject
        clients exactly at a radius, and everybody where all are alike in one measure. The authors'
        code compares the model's buffers as well, and weights those kept by their examples; BackFed
        weights them equally and takes half of the step.

    References:
        Xu et al., Detecting Backdoor Attacks in Federated Learning via Direction Alignment
        Inspection, CVPR 2025.
    """
    norms = norms_of(updates)
    directions = cosines_with(updates, received, norms)
    signs = _shares_of_principal_signs(updates, top_fraction)
    suspicion = torch.maximum(
        mz_scores(directions) / direction_radius, mz_scores(signs) / sign_radius
    )
    usual = suspicion <= 1 + BORDER
    median = torch.where(usual, norms, torch.nan).nanmedian()
    heard = normalised(prior_or_uniform(updates, prior) * usual)
    return mean_of_clipped(updates, norms, median, heard, suspicion)


def _shares_of_principal_signs(
    updates: Float[Tensor, "n d"], top_fraction: float
) -> Float[Tensor, " n"]:
    principal = torch.empty_like(updates[0])
    for columns in column_blocks(updates):
        principal[columns] = updates[:, columns].sign().sum(dim=0).sign()
    n_top = max(1, round(top_fraction * updates.shape[1]))
    shares = torch.empty(len(updates), dtype=torch.float64, device=updates.device)

    def look_at(rows: slice, scratch: None) -> None:
        sizes, agree = updates[rows].abs(), updates[rows].sign() == principal
        least = kth_largest(sizes, n_top)[:, None]
        above, equal = sizes > least, sizes == least
        part = (n_top - above.count_nonzero(dim=1)).double() / equal.count_nonzero(dim=1)
        above, equal = above & agree, equal & agree
        agreeing = above.count_nonzero(dim=1) + part * equal.count_nonzero(dim=1)
        shares[rows] = agreeing / n_top

    each_block(row_blocks(updates), look_at, lambda: None, updates.device.type == "cpu")
    return shares
