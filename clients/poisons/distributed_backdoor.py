"""Distributed backdoor: each attacker stamps one piece of the trigger."""

from functools import partial

import numpy as np
import torch

from clients.poisons.dirty_label_backdoor import dirty_label_backdoor
from clients.poisons.triggers import Trigger
from clients.shard import Shard
from strategies.shapes import Bool, Float, Tensor


def touched_pixels(trigger: Trigger, shape: tuple[int, ...]) -> Bool[Tensor, "h w"]:
    """Mark the pixels that a trigger changes on a black or a white image of shape (c, h, w)."""
    black = torch.zeros(1, *shape)
    return torch.stack([trigger(x) != x for x in (black, 1 - black)]).any(0).any(0).any(0)


def stamp_piece(
    images: Float[Tensor, "n c h w"], trigger: Trigger, piece: int, n_pieces: int
) -> Float[Tensor, "n c h w"]:
    """Stamp one piece of a trigger.

    The pixels that the trigger touches are cut, in reading order, into ``n_pieces`` runs of equal
    length (to a pixel). On the paper's four strips the pieces are its four strips; on a 4 × 4 patch
    cut in 4 they are its rows.

    Raises:
        ValueError: If the trigger touches fewer pixels than there are pieces.
    """
    touched = touched_pixels(trigger, tuple(images.shape[1:])).flatten()
    pixels = touched.nonzero().squeeze(1).numpy()
    if len(pixels) < n_pieces:
        raise ValueError(
            f"a trigger of {len(pixels)} pixels cannot be cut into {n_pieces} pieces: lower "
            "poison.n_pieces or enlarge the trigger"
        )
    mine = torch.zeros_like(touched)
    mine[torch.from_numpy(np.array_split(pixels, n_pieces)[piece])] = True
    return torch.where(mine.reshape(images.shape[-2:]), trigger(images), images)


def distributed_backdoor(
    shard: Shard,
    trigger: Trigger,
    attacker: int,
    n_pieces: int,
    target: int,
    fraction: float,
    rng: np.random.Generator,
    source: int | None = None,
) -> Shard:
    """Poison as a dirty-label backdoor does, with this attacker's piece of the trigger.

    The backdoor is tested with the whole trigger, which nobody trained on.

    Args:
        shard: The attacker's clean shard.
        trigger: The whole trigger.
        attacker: The attacker's number, from 0; attacker i stamps piece i modulo ``n_pieces``.
        n_pieces: Into how many pieces the trigger is cut (4 in the paper).
        target: The class that stamped inputs shall get.
        fraction: Share of the whole shard that is poisoned (in the release, 20 of each batch of 64
            on MNIST and 5 on CIFAR-10, of whatever class).
        rng: Picks which examples.
        source: The only class to poison; by default any but the target.

    Raises:
        ValueError: If the trigger is too small to cut, or the shard holds too few source examples.

    References:
        Xie et al., DBA: Distributed Backdoor Attacks against Federated Learning, ICLR 2020.
    """
    piece = partial(stamp_piece, trigger=trigger, piece=attacker % n_pieces, n_pieces=n_pieces)
    return dirty_label_backdoor(shard, piece, target, fraction, rng, source)
