"""Model replacement: boost an update so that it survives the average."""

from clients.attacks.forged import Forged
from strategies.shapes import Float, Tensor


def model_replacement(
    own: Float[Tensor, "f d"], n_clients: int, n_attackers: int, factor: float | None = None
) -> Forged:
    """Send uᵢ' = γ uᵢ. Blind.

    Args:
        own: What the attackers would send, local minus global parameters; poisoned, as a rule.
        n_clients: Clients n in the round.
        n_attackers: Attackers f among them, who share the boost.
        factor: The factor γ; by default n / f, at which the mean is replaced by the attackers' once
            honest updates cancel and clients have equal weight (a server step η would divide it;
            the code of Attack of the Tails takes the share of examples). Peers give 50 (FLPoison)
            and 25 to 75 (BackFed); Ditto's third attack takes n. DBA's release gives 100 with
            η = 0.1 and n = 10, which is 10 at a step of 1.

    References:
        Bagdasaryan et al., How To Backdoor Federated Learning, AISTATS 2020, equation 3.
    """
    return Forged(own * (n_clients / n_attackers if factor is None else factor))
