"""Rejection on negative impact: leave out clients without whom the model would be better."""

from collections.abc import Callable, Iterator

import torch

from strategies.aggregation.aggregate import (
    Aggregate,
    Aggregator,
    normalised,
    prior_or_uniform,
    shared_by_copies,
    weighted_sum,
)
from strategies.aggregation.mean import mean
from strategies.aggregation.traits import Bound, Traits
from strategies.shapes import Bool, Float, Int, Tensor

Evaluate = Callable[[Tensor], tuple[float, float]]
"""From an update to the error rate and the mean loss of the model it gives, on server data."""


error_rate_rejection_bound = Bound("error_rate_rejection", 1, 1)
loss_rejection_bound = Bound("loss_rejection", 1, 1)
union_rejection_bound = Bound("union_rejection", 2, 1)


@Traits(bound=error_rate_rejection_bound, selects=True)
def error_rate_rejection(
    updates: Float[Tensor, "n d"],
    evaluate: Evaluate,
    n_malicious: int,
    aggregate: Aggregator = mean,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Drop the f clients whose presence raises the error rate most (ERR), then aggregate.

    A client's impact is the error of the model aggregated from all minus that of the model
    aggregated from all others. The impact of a minority that is scarce in the validation data is
    bad, if there is any: the rule is only as fair as those data.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        evaluate: Error rate and mean loss, on the server's validation data, of the model that an
            update gives. Called n + 1 times.
        n_malicious: How many clients f to drop; 20 of 100 in the paper.
        aggregate: The rule applied to all, to all but one and to the rest, its parameters bound.
        prior: Each client's weight before the rule; equal by default.

    Returns:
        update: What the rule makes of the rest.
        weights: The rule's, 0 for those dropped.
        suspicion: The impact on the error rate.

    Bound:
        n >= f + 1, else TooFewClientsError, also where the rule's own bound fails for the rest. It
        guarantees nothing: without one of two attackers the model is as bad as with both.

    Ties:
        Error rates on a hundred examples are often equal: of equal impacts those of less impact on
        the loss stay, then the lowest rows. Copies of a row that stays share its weight.

    Variants:
        The paper aggregates by Krum, trimmed mean or median; the scenario's rule takes the mean.
        Its validation set has 100 examples.

    References:
        Fang et al., Local Model Poisoning Attacks to Byzantine-Robust Federated Learning, USENIX
        Security 2020, section 5.
    """
    n = len(updates)
    error_rate_rejection_bound(n, n_malicious)
    on_error, on_loss = _impacts(updates, evaluate, aggregate, prior)
    kept = _ranks(on_error, on_loss) < n - n_malicious
    return _without(updates, kept, aggregate, prior, on_error)


@Traits(bound=loss_rejection_bound, selects=True)
def loss_rejection(
    updates: Float[Tensor, "n d"],
    evaluate: Evaluate,
    n_malicious: int,
    aggregate: Aggregator = mean,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Drop the f clients whose presence raises the loss most (LFR), then aggregate.

    Everything but the measure is as described under :func:`error_rate_rejection`.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        evaluate: Error rate and mean loss of an update's model on the server's validation data.
        n_malicious: How many clients f to drop.
        aggregate: The rule applied to all, to all but one and to the rest, its parameters bound.
        prior: Each client's weight before the rule; equal by default.

    Returns:
        update: What the rule makes of the rest.
        weights: The rule's, 0 for those dropped.
        suspicion: The impact on the loss.

    Bound:
        n >= f + 1, else TooFewClientsError, also where the rule's own bound fails for the rest. It
        guarantees nothing: two opposite attackers make up for each other.

    Ties:
        Of equal impacts the lowest rows stay; copies of any of them share its weight.

    Variants:
        The paper aggregates by Krum, trimmed mean or median; the scenario's rule takes the mean.

    References:
        Fang et al., Local Model Poisoning Attacks to Byzantine-Robust Federated Learning, USENIX
        Security 2020, section 5.
    """
    n = len(updates)
    loss_rejection_bound(n, n_malicious)
    _, on_loss = _impacts(updates, evaluate, aggregate, prior)
    return _without(updates, _ranks(on_loss) < n - n_malicious, aggregate, prior, on_loss)


@Traits(bound=union_rejection_bound, selects=True)
def union_rejection(
    updates: Float[Tensor, "n d"],
    evaluate: Evaluate,
    n_malicious: int,
    aggregate: Aggregator = mean,
    prior: Float[Tensor, " n"] | None = None,
) -> Aggregate:
    """Drop the clients that either ERR or LFR would drop, up to 2f, then aggregate.

    The two are :func:`error_rate_rejection` and :func:`loss_rejection`.

    Args:
        updates: Local minus global parameters, one row per client, shape (n, d).
        evaluate: Error rate and mean loss of an update's model on the server's validation data.
        n_malicious: How many clients f each of the two drops.
        aggregate: The rule applied to all, to all but one and to the rest, its parameters bound.
        prior: Each client's weight before the rule; equal by default.

    Returns:
        update: What the rule makes of the rest.
        weights: The rule's, 0 for those dropped.
        suspicion: The higher of the client's two places in the order of impact, from 0.

    Bound:
        n >= 2f + 1, else TooFewClientsError, also where the rule's own bound fails for those left.
        It guarantees nothing: attackers cover for each other, as with either measure alone.

    Ties:
        Of equal impacts on the error rate those of less impact on the loss stay, then the lowest
        rows. Copies of a row that stays share its weight.

    Variants:
        The paper aggregates by Krum, trimmed mean or median; the scenario's rule takes the mean.

    References:
        Fang et al., Local Model Poisoning Attacks to Byzantine-Robust Federated Learning, USENIX
        Security 2020, section 5.
    """
    n = len(updates)
    union_rejection_bound(n, n_malicious)
    on_error, on_loss = _impacts(updates, evaluate, aggregate, prior)
    worst = torch.maximum(_ranks(on_error, on_loss), _ranks(on_loss))
    return _without(updates, worst < n - n_malicious, aggregate, prior, worst.double())


def _impacts(
    updates: Float[Tensor, "n d"],
    evaluate: Evaluate,
    aggregate: Aggregator,
    prior: Float[Tensor, " n"] | None,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return by how much each client raises the error rate and the loss."""
    n = len(updates)
    prior = prior_or_uniform(updates, prior)
    impacts = torch.empty(2, n, dtype=torch.float64)
    with_all = _measured(evaluate, aggregate(updates, prior=prior).update)
    for i, update in enumerate(_updates_without_each(updates, aggregate, prior)):
        impacts[:, i] = with_all - _measured(evaluate, update)
    # A loss that is finite only without a client is a huge impact; one that never is tells nothing.
    impacts = impacts.nan_to_num(nan=0.0, posinf=1e300, neginf=-1e300).to(updates.device)
    return impacts[0], impacts[1]


def _measured(evaluate: Evaluate, update: Float[Tensor, " d"]) -> Float[Tensor, "2"]:
    """Return error rate and loss; infinite where a model is too large to have any."""
    figures = torch.tensor(evaluate(update), dtype=torch.float64)
    return torch.where(figures.isnan(), torch.inf, figures)


def _updates_without_each(
    updates: Float[Tensor, "n d"], aggregate: Aggregator, prior: Float[Tensor, " n"]
) -> Iterator[Float[Tensor, " d"]]:
    """Aggregate, for each client in turn, the updates of all others; 0 without any."""
    if len(updates) == 1:
        yield torch.zeros_like(updates[0])
        return
    if aggregate is mean and prior.count_nonzero() > 1:  # whoever is left out, others have weight
        nothing = torch.zeros(updates.shape[1], dtype=torch.float64, device=updates.device)
        for i, total in enumerate(_sums_without_each(updates, prior, nothing)):
            rest = prior[:i].sum() + prior[i + 1 :].sum()
            yield (total / rest).to(updates.dtype)
        return
    others = updates[1:].clone()
    for i in range(len(updates)):
        if i > 0:  # from "all but i - 1" to "all but i" only one row changes
            others[i - 1] = updates[i - 1]
        rest = torch.cat([prior[:i], prior[i + 1 :]])
        yield aggregate(others, prior=_shares(rest)).update


def _sums_without_each(
    updates: Float[Tensor, "m d"], weights: Float[Tensor, " m"], outside: Float[Tensor, " d"]
) -> Iterator[Float[Tensor, " d"]]:
    """Add to a sum, for each row in turn, all other rows times their weights.

    Half of the rows go into the sum that the other half begins with, and so on: m log m additions
    in place of m², and nothing is subtracted, which would leave a huge row's rounding errors
    behind.
    """
    if len(updates) == 1:
        yield outside
        return
    half = len(updates) // 2
    first, second = slice(None, half), slice(half, None)
    for inside, added in ((first, second), (second, first)):
        more = outside + weighted_sum(updates[added], weights[added], torch.float64)
        yield from _sums_without_each(updates[inside], weights[inside], more)


def _without(
    updates: Float[Tensor, "n d"],
    kept: Bool[Tensor, " n"],
    aggregate: Aggregator,
    prior: Float[Tensor, " n"] | None,
    suspicion: Float[Tensor, " n"],
) -> Aggregate:
    prior = prior_or_uniform(updates, prior)
    weights = normalised(prior * kept)
    if aggregate is mean:  # it does not even read rows of weight 0: no need to copy the others
        result = mean(updates, weights)._replace(suspicion=suspicion)
    else:
        of_kept = aggregate(updates[kept], prior=weights[kept])
        result = of_kept._replace(
            weights=_among_all(of_kept.weights, kept),
            suspicion=suspicion,
            multipliers=_among_all(of_kept.multipliers, kept),
            pulls=_among_all(of_kept.pulls, kept),
        )
    return shared_by_copies(result, updates, prior)


def _among_all(
    figures: Float[Tensor, " m"] | None, kept: Bool[Tensor, " n"]
) -> Float[Tensor, " n"] | None:
    if figures is None:
        return None
    result = torch.zeros(len(kept), dtype=torch.float64, device=figures.device)
    result[kept] = figures.double()
    return result


def _shares(prior: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return normalised(prior) if prior.any() else torch.full_like(prior, 1 / len(prior))


def _ranks(*impacts: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return each client's place, from 0, by the first impact, where equal by the next."""
    order = torch.arange(len(impacts[0]), device=impacts[0].device)
    for impact in reversed(impacts):
        order = order[impact[order].argsort(stable=True)]
    return order.argsort()
