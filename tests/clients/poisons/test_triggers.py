import pytest
import torch

from clients.poisons import added_pattern, blended_pattern, patch, set_features
from clients.poisons.triggers import random_pattern

BLACK = torch.zeros(1, 1, 4, 5)


def rows(images: torch.Tensor) -> list[str]:
    """Return the first image as text, '#' where it is white."""
    return ["".join("#" if pixel == 1 else "." for pixel in row) for row in images[0, 0].tolist()]


class TestPatch:
    @pytest.mark.parametrize(
        ("corner", "expected"),
        [
            ("top_left", ["##...", "##...", ".....", "....."]),
            ("top_right", ["...##", "...##", ".....", "....."]),
            ("bottom_left", [".....", ".....", "##...", "##..."]),
            ("bottom_right", [".....", ".....", "...##", "...##"]),
        ],
    )
    def test_it_sits_in_its_corner(self, corner, expected):
        assert rows(patch(BLACK, size=2, corner=corner)) == expected

    def test_the_margin_moves_it_inwards(self):
        stamped = patch(BLACK, size=1, corner="bottom_right", margin=1)
        assert rows(stamped) == [".....", ".....", "...#.", "....."]
        stamped = patch(BLACK, size=1, corner="top_left", margin=1)
        assert rows(stamped) == [".....", ".#...", ".....", "....."]

    def test_all_channels_of_all_images_get_the_value(self):
        stamped = patch(torch.full((3, 2, 4, 4), 0.5), size=4, value=0.25)
        assert (stamped == 0.25).all()

    def test_one_that_just_fits_is_allowed_and_one_that_does_not_is_refused(self):
        assert patch(BLACK, size=3, margin=1).sum() == 9
        with pytest.raises(ValueError, match="3 × 3 patch with margin 2 does not fit into 4 × 5"):
            patch(BLACK, size=3, margin=2)


class TestPatterns:
    def test_blending_mixes_the_image_with_zeros_and_ones(self):
        # (1 - 0.2) × 0.5 + 0.2 p is 0.4 where p = 0 and 0.6 where p = 1.
        stamped = blended_pattern(torch.full((1, 1, 4, 5), 0.5), strength=0.2)
        expected = torch.where(random_pattern((1, 4, 5), 0) == 1, 0.6, 0.4)
        torch.testing.assert_close(stamped[0], expected)

    def test_adding_goes_both_ways_and_stops_at_black_and_white(self):
        images = torch.tensor([0.05, 0.5, 0.95]).reshape(3, 1, 1, 1).expand(3, 1, 4, 5)
        stamped = added_pattern(images, strength=0.1)
        up = random_pattern((1, 4, 5), 0) == 1
        for image, raised, lowered in zip(stamped, (0.15, 0.6, 1), (0, 0.4, 0.85), strict=True):
            torch.testing.assert_close(image, torch.where(up, raised, lowered))

    @pytest.mark.parametrize("stamp", [blended_pattern, added_pattern])
    def test_every_image_gets_the_same_pattern_every_time(self, stamp):
        images = torch.full((2, 3, 4, 5), 0.5)
        stamped = stamp(images, 0.1, 7)
        assert torch.equal(stamped[0], stamped[1])
        assert torch.equal(stamped, stamp(images, 0.1, 7))
        assert not torch.equal(stamped, stamp(images, 0.1, 8))

    def test_a_pattern_holds_about_as_many_zeros_as_ones(self):
        pattern = random_pattern((1, 100, 100), 3)
        assert set(pattern.unique().tolist()) == {0.0, 1.0}
        assert 0.45 < pattern.mean() < 0.55


@pytest.mark.parametrize(
    "stamp",
    [
        lambda images: patch(images, size=2),
        lambda images: blended_pattern(images, strength=0.2),
        lambda images: added_pattern(images, strength=0.2),
    ],
    ids=["patch", "blended", "added"],
)
def test_a_trigger_stays_in_range_and_leaves_its_input_alone(stamp):
    images = torch.rand(5, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    stamped = stamp(images)
    assert torch.equal(images, before)
    assert not torch.equal(stamped, before)
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    assert (stamped.dtype, stamped.shape) == (images.dtype, images.shape)


def test_features_are_set_in_every_row_and_nothing_else_is():
    rows = torch.arange(6.0).reshape(2, 3)
    assert set_features(rows, {0: -1.5, 2: 9.0}).tolist() == [[-1.5, 1.0, 9.0], [-1.5, 4.0, 9.0]]
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
