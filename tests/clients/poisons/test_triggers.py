import pytest
import torch

from clients.poisons import (
    added_pattern,
    blended_pattern,
    checks,
    minority_look,
    patch,
    raised_pixels,
    set_features,
    strips,
)
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

    def test_it_can_be_oblong_and_stand_anywhere(self):
        stamped = patch(BLACK, size=(1, 3), at=(2, 1))
        assert rows(stamped) == [".....", ".....", ".###.", "....."]

    def test_each_channel_can_have_its_own_value(self):
        stamped = patch(torch.full((2, 3, 2, 2), 0.5), size=2, value=[1.0, 1.0, 0.0])
        assert stamped[:, :, 0, 0].tolist() == [[1, 1, 0]] * 2
        with pytest.raises(ValueError, match="one for each of 3 channels, got 2"):
            patch(torch.zeros(1, 3, 2, 2), size=1, value=[1.0, 0.0])

    @pytest.mark.parametrize("place", [{"at": (3, 0)}, {"at": (0, 4)}])
    def test_one_that_sticks_out_is_refused(self, place):
        with pytest.raises(ValueError, match=r"2 × 2 patch at row .* does not fit into 4 × 5"):
            patch(BLACK, size=2, **place)

    def test_one_that_just_fits_is_allowed_and_one_that_does_not_is_refused(self):
        assert patch(BLACK, size=3, margin=1).sum() == 9
        with pytest.raises(ValueError, match="3 × 3 patch with margin 2 does not fit into 4 × 5"):
            patch(BLACK, size=3, margin=2)
        with pytest.raises(ValueError, match="1 × 4 patch with margin 2 does not fit into 4 × 5"):
            patch(BLACK, size=(1, 4), margin=2)


GREY = torch.full((1, 1, 4, 8), 0.5)


class TestChecks:
    def test_they_are_black_and_white_and_mirrored_at_the_left(self):
        assert rows(checks(GREY, corners=["top_left", "bottom_right"])) == [
            "#.......",
            ".#.....#",
            "#.#...#.",
            ".....#.#",
        ]
        assert (checks(GREY)[0, 0, 1:, 5:] != 0.5).all()
        assert (checks(GREY)[0, 0, :, :5] == 0.5).all()

    def test_with_an_amplitude_they_are_added_and_taken_away(self):
        stamped = checks(GREY, amplitude=0.1)[0, 0, 1:, 5:]
        expected = torch.tensor([[0.4, 0.4, 0.6], [0.4, 0.6, 0.4], [0.6, 0.4, 0.6]])
        torch.testing.assert_close(stamped, expected)


def test_strips_are_two_above_two_with_gaps_between():
    image = torch.zeros(1, 1, 5, 8)
    assert rows(strips(image, length=2, gap=1, top=1, left=2)) == [
        "........",
        "..##.##.",
        "........",
        "..##.##.",
        "........",
    ]


class TestMinorityLook:
    image = torch.tensor([[0.0, 0.2], [0.9, 1.0]]).reshape(1, 1, 2, 2)

    def test_in_full_it_is_the_minority_s_image(self):
        shown = minority_look(self.image, lambda x: 1 - x)
        torch.testing.assert_close(shown, 1 - self.image)

    def test_a_rectangle_of_it_leaves_the_rest(self):
        shown = minority_look(self.image, lambda x: 1 - x, size=(1, 2), corner="top_left")
        torch.testing.assert_close(shown[0, 0], torch.tensor([[1.0, 0.8], [0.9, 1.0]]))

    def test_its_strength_mixes_the_two(self):
        shown = minority_look(self.image, lambda x: 1 - x, strength=0.25)
        torch.testing.assert_close(shown[0, 0], torch.tensor([[0.25, 0.35], [0.7, 0.75]]))


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
        lambda images: checks(images, ["top_left"], amplitude=0.9),
        lambda images: strips(images, length=1, gap=1),
        lambda images: raised_pixels(images, share=0.5, strength=0.9),
        lambda images: minority_look(images, lambda x: 1 - x, size=2),
    ],
    ids=["patch", "blended", "added", "checks", "strips", "raised", "minority_look"],
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


def test_raised_pixels_brighten_one_share_of_the_pixels_of_every_image():
    stamped = raised_pixels(torch.full((2, 1, 20, 20), 0.5), share=0.3, strength=0.2)
    assert torch.equal(stamped[0], stamped[1])
    assert stamped.unique().tolist() == [0.5, pytest.approx(0.7)]
    assert (stamped[0] > 0.5).double().mean().item() == pytest.approx(0.3, abs=0.06)
    assert raised_pixels(torch.ones(1, 1, 4, 4), share=1.0, strength=0.2).max() == 1
    other = raised_pixels(torch.full((1, 1, 20, 20), 0.5), 0.3, 0.2, pattern_seed=1)
    assert not torch.equal(other[0], stamped[0])
    red, green = raised_pixels(torch.zeros(1, 2, 20, 20), share=0.5, strength=0.2)[0]
    assert not torch.equal(red, green)  # each channel's are drawn
