"""PoisonedFL: push the model along one random sign vector, round after round."""

from statistics import NormalDist

import numpy as np
import torch

from clients.attacks.forged import Forged, repeated
from strategies.memory import Memory
from strategies.shapes import Float, Tensor

LEAST = 0.5  # factor c below which it is not lowered
CONFIDENCE = 0.99  # of the test whether the model moved along the signs


def poisonedfl(
    own: Float[Tensor, "f d"],
    received: Float[Tensor, " d"],
    memory: Memory,
    rng: np.random.Generator,
    scale: float = 8.0,
    window: int = 50,
    decay: float = 0.7,
) -> Forged:
    """Send c ‖g‖ v ⊙ s from every attacker: signs s drawn once, magnitudes v from what they did
    last round, and a factor c that is lowered while the model does not follow.

    g is the model's move since the attackers last received it, k what they sent then. With
    v = |g - (‖g‖ / ‖k‖) k|, scaled to length 1, they push where others moved the model. After every
    ``window`` rounds of theirs they count the coordinates in which the model has moved, since the
    window began, along s. If a fair coin falls so often on one side with a probability of more than
    0.01, c becomes ``decay`` · c, unless that is below 0.5. In their first round they send 0.

    They need to know no update of others and no data, but act together.

    Args:
        own: What the attackers would send, local minus global parameters; only its shape matters.
        received: The global parameters.
        memory: Holds ``signs`` s, ``received`` and ``sent`` of the last round, ``start``, where the
            window began, ``rounds`` since then, and ``factor`` c.
        rng: Draws s.
        scale: c at the beginning; 8 in the authors' scripts. With f of n clients the mean grows
            from round to round, beyond all bounds, if c > n / f.
        window: Rounds between two tests.
        decay: The factor by which c is lowered.

    References:
        Xie et al., Model Poisoning Attacks to Federated Learning via Multi-Round Consistency,
        CVPR 2025. Constants, the first round, the bound of 0.5 and the sign that counts for a
        coordinate that has not moved, its parameter's, are those of the authors' code. Its windows
        leave out one move of 50.
    """
    if not memory:
        signs = torch.from_numpy(rng.integers(2, size=len(received), dtype=np.int8) * 2 - 1)
        memory = {"signs": signs.to(received), "start": received, "rounds": torch.tensor(0)}
        memory |= {"factor": torch.tensor(scale, dtype=torch.float64)}
        sent = torch.zeros_like(received)
    else:
        memory = _adapted(received, memory, window, decay)
        move, last = received - memory["received"], memory["sent"]
        length = torch.linalg.vector_norm(move)
        echo = length / torch.linalg.vector_norm(last).clamp(min=1e-30)
        sizes = (move - echo * last).abs()
        sizes *= memory["factor"] * length / torch.linalg.vector_norm(sizes).clamp(min=1e-30)
        sent = sizes * memory["signs"]
    memory = {**memory, "received": received, "sent": sent, "rounds": memory["rounds"] + 1}
    return Forged(repeated(sent, own), memory)


def _adapted(received: Float[Tensor, " d"], memory: Memory, window: int, decay: float) -> Memory:
    """Return the memory with a new window and factor, if a window has ended."""
    if memory["rounds"] < window:
        return memory
    moved = received - memory["start"]
    moved = torch.where(moved == 0, received, moved)
    follows = int((moved.sign() == memory["signs"]).sum()) >= _by_chance(len(moved))
    lowered = decay * memory["factor"]
    factor = memory["factor"] if follows or lowered < LEAST else lowered
    return {**memory, "factor": factor, "start": received, "rounds": torch.tensor(0)}


def _by_chance(d: int) -> float:
    """Return how often at most d fair coins fall on one side, with a probability of 0.99."""
    return (d - 1 + NormalDist().inv_cdf(CONFIDENCE) * d**0.5) / 2  # - 1: coins are whole
