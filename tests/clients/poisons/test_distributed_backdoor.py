from functools import partial

import numpy as np
import pytest
import torch

from clients.poisons import added_pattern, distributed_backdoor, patch, strips
from clients.poisons.distributed_backdoor import stamp_piece

BLACK = torch.zeros(1, 1, 6, 10)
four_strips = partial(strips, length=4, gap=2)


def white_pixels(images: torch.Tensor) -> list[tuple[int, int]]:
    return [(row, column) for row, column in images[0, 0].nonzero().tolist()]


def test_the_pieces_of_the_strips_are_the_strips():
    # The release's lists of pixels for MNIST.
    expected = [
        [(0, 0), (0, 1), (0, 2), (0, 3)],
        [(0, 6), (0, 7), (0, 8), (0, 9)],
        [(3, 0), (3, 1), (3, 2), (3, 3)],
        [(3, 6), (3, 7), (3, 8), (3, 9)],
    ]
    pieces = [white_pixels(stamp_piece(BLACK, four_strips, piece, 4)) for piece in range(4)]
    assert pieces == expected


def test_the_pieces_of_a_square_are_its_rows():
    square = partial(patch, size=2)
    assert white_pixels(stamp_piece(BLACK, square, 1, 2)) == [(5, 8), (5, 9)]


def test_together_the_pieces_are_the_trigger():
    images = torch.rand(3, 2, 6, 10, generator=torch.Generator().manual_seed(0))
    trigger = partial(added_pattern, strength=0.2)
    stamped = images
    for piece in range(7):  # 60 pixels do not part evenly into 7
        stamped = stamp_piece(stamped, trigger, piece, 7)
    assert torch.equal(stamped, trigger(images))


def test_a_white_trigger_is_cut_where_it_shows_on_black_and_a_black_one_where_on_white():
    black_square = partial(patch, size=2, value=0.0)
    stamped = stamp_piece(1 - BLACK, black_square, 0, 2)
    assert white_pixels(1 - stamped) == [(4, 8), (4, 9)]


def test_each_attacker_has_its_own_piece_and_starts_again_after_the_last(shard_of):
    def poisoned(attacker):
        rng = np.random.default_rng(0)
        square = partial(patch, size=2)
        return distributed_backdoor(shard_of([1, 1], 2), square, attacker, 4, 0, 1.0, rng).inputs

    for attacker, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        stamped = poisoned(attacker) == 1
        assert stamped.sum() == 2
        assert stamped[:, 0, row, column].all()
    assert torch.equal(poisoned(5), poisoned(1))


def test_a_trigger_of_fewer_pixels_than_pieces_is_refused():
    with pytest.raises(ValueError, match="a trigger of 1 pixels cannot be cut into 2 pieces"):
        stamp_piece(BLACK, partial(patch, size=1), 0, 2)
