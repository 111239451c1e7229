"""q-FedAvg: fairness by raising the loss to a power."""

from strategies.aggregation.aggregate import normalised, norms_of
from strategies.reweighting.lift import Lift
from strategies.shapes import Float, Tensor


def q_fedavg(
    losses: Float[Tensor, " n"],
    updates: Float[Tensor, "n d"],
    prior: Float[Tensor, " n"],
    q: float,
    lipschitz: float,
    own_step: bool = True,
) -> Lift:
    """Weight clients by loss^q and move by the step that the paper estimates.

    With d_k = L (w - w_k) the paper's step is w - Σ p_k F_k^q d_k / Σ p_k h_k, where h_k = q
    F_k^(q-1) ||d_k||² + L F_k^q. Written with updates u_k = w_k - w this is a weighted mean,
    weights ∝ p_k F_k^q, times the step L Σ p_k F_k^q / Σ p_k h_k. q = 0 is FedAvg.

    Args:
        losses: Mean loss F_k of the received model on each client's data, shape (n,), >= 0.
        updates: Local minus global parameters, one row per client, shape (n, d).
        prior: Weights p_k before any lift, shape (n,), sum 1.
        q: The fairness exponent, >= 0.
        lipschitz: The constant L.
        own_step: Whether to take the paper's step, which shrinks as q grows; its weights alone
            otherwise.

    Returns:
        weights: prior · loss^q, scaled to sum 1.
        step: L Σ p_k F_k^q / Σ p_k h_k, in (0, 1]; 1 without the paper's step.

    Bound:
        None: a client that reports a large loss takes all the weight, and one that sends a large
        update makes the step as short as it likes, even where a rule rejects it.

    Ties:
        None can arise.

    Variants:
        L is 1 / local learning rate in the paper; q is 5 on the paper's Vehicle data, 0.1 by
        default in Flower. The paper draws clients in proportion to p_k in place of weighting them.

    References:
        Li et al., Fair Resource Allocation in Federated Learning, ICLR 2020, algorithm 2.
    """
    losses = losses + 1e-10  # the authors' guard against F^(q-1) of a client with loss 0
    # All powers are divided by the largest that counts: a claim of 1e38 would make them inf, or,
    # from a client of prior 0, all others 0.
    largest = losses[prior > 0].max()
    powered = prior * (losses / largest).clamp(max=1) ** q
    if not own_step:
        return Lift(normalised(powered))
    squares = (norms_of(updates) ** 2).to(losses.device)
    curvature = powered * (q * lipschitz**2 * squares / losses + lipschitz)
    step = lipschitz * powered.sum() / curvature.sum()
    return Lift(normalised(powered), step=step.item())
