"""Mimic: all attackers pose as one honest client."""

import numpy as np
import torch

from clients.attacks.forged import Forged, repeated
from clients.attacks.moments import mean_and_std, offsets
from strategies.aggregation.aggregate import dot_products, weighted_sum
from strategies.memory import Memory
from strategies.shapes import Float, Int, Tensor


def mimic(
    own: Float[Tensor, "f d"],
    seen: Float[Tensor, "m d"],
    seen_clients: Int[Tensor, " m"],
    memory: Memory,
    rng: np.random.Generator,
    client: int | None = None,
    warm_up_rounds: int = 1,
) -> Forged:
    """Send uᵢ* of one honest client i* from every attacker, so that it counts f + 1 times.

    Unless ``client`` is given, the attackers seek the direction z in which honest updates differ
    most, by one power iteration a round: in round t of the warm-up, z ← (t z + v / ‖v‖) / (t + 1)
    with v = Σᵢ ⟨uᵢ - μ, z⟩ (uᵢ - μ), scaled to length 1, and μ the running mean of all rounds; i*
    is the client of largest ⟨uᵢ, z⟩. After the warm-up i* stays; in a round without it, the client
    of largest ⟨uᵢ, z⟩ takes its place.

    Args:
        own: What the attackers would send, local minus global parameters.
        seen: The honest updates uᵢ.
        seen_clients: Their clients' ids.
        memory: Holds ``direction``, ``mean``, ``rounds`` and ``client``.
        rng: Draws the first direction.
        client: The client i*, if it is given. In a round without it, attackers send ``own``.
        warm_up_rounds: Rounds in which z is sought and i* may change; 1 in the authors' code.

    References:
        Karimireddy et al., Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing,
        ICLR 2022, appendix B.
    """
    if client is not None:
        there = (seen_clients == client).nonzero()
        return Forged(repeated(seen[int(there[0])], own) if len(there) else own)
    rounds = int(memory["rounds"]) if memory else 0
    if rounds < warm_up_rounds:
        memory = _learnt(seen, memory, rounds, rng)
    chosen = int(dot_products(seen, memory["direction"]).argmax())
    if rounds < warm_up_rounds:
        memory = {**memory, "client": seen_clients[chosen]}
    else:
        kept = (seen_clients == memory["client"]).nonzero()
        chosen = int(kept[0]) if len(kept) else chosen
    return Forged(repeated(seen[chosen], own), memory)


def _learnt(
    seen: Float[Tensor, "m d"], memory: Memory, rounds: int, rng: np.random.Generator
) -> Memory:
    mean = mean_and_std(seen)[0]
    if rounds:
        mean = (rounds * memory["mean"] + mean) / (rounds + 1)
        direction = memory["direction"]
    else:
        direction = torch.from_numpy(rng.standard_normal(len(mean), dtype=np.float32)).to(mean)
    along = offsets(seen, mean, direction)[1]
    pull = _unit(weighted_sum(seen, along) - (float(along.sum()) * mean))
    direction = _unit(rounds * direction + pull) if rounds else pull
    n_rounds = torch.tensor(rounds + 1)
    return {"direction": direction, "mean": mean, "rounds": n_rounds}


def _unit(vector: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    return vector / torch.linalg.vector_norm(vector).clamp(min=1e-30)
