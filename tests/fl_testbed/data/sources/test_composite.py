from dataclasses import replace

import numpy as np
import pytest
from published import assert_sound

from fl_testbed.data import DataError, Dataset, Examples
from fl_testbed.data.groups import groups_by
from fl_testbed.data.sources.composite import (
    coloured,
    load_composite,
    photographed,
    textured,
)

SIZE = (4, 4)


def shapes(n: int, first_id: int = 0) -> Examples:
    """White squares on black, in three classes; the square is larger where the id is even."""
    images = np.zeros((n, 1, 4, 4), dtype=np.uint8)
    images[:, :, 1:3, 1:3] = 255
    images[::2, :, 1:3, 3] = 255
    ids = np.arange(first_id, first_id + n)
    return Examples(images, np.arange(n) % 3, ids=ids)


SHAPES = Dataset("shapes", shapes(300), shapes(30, 300), ("a", "b", "c"))


def digits(n: int, value: int) -> Examples:
    """Plain images whose brightness is their class, a little darker for testing."""
    labels = np.arange(n) % 4
    images = (labels * 40 + value)[:, None, None, None] * np.ones((1, 1, 4, 4))
    return Examples(images.astype(np.uint8), labels)


DIGITS = Dataset("digits", digits(40, 20), digits(40, 10), ("0", "1", "2", "3"))


def composite(backgrounds=None, seed: int = 0, **options) -> Dataset:
    backgrounds = backgrounds or coloured(["red", "blue"], SIZE)
    return load_composite(SHAPES, backgrounds, np.random.default_rng(seed), **options)


class TestGroups:
    def test_backgrounds_go_with_their_class_as_often_as_asked_for(self):
        made = composite(correlation=0.9)
        assert_sound(replace(made, test=replace(made.test, ids=300 + np.arange(60))))
        groups = groups_by(made, ["label", "background"])
        assert groups.names[:2] == ("a, red", "a, blue")
        # The third class goes with the first background again.
        assert np.bincount(groups.train).tolist() == [90, 10, 10, 90, 90, 10]

    def test_a_background_goes_with_the_place_of_a_class_and_not_with_its_number(self):
        made = composite(classes=[2, 0], correlation=1.0)
        assert made.classes == ("c", "a")
        assert np.array_equal(made.train.attributes["background"], made.train.labels)

    @pytest.mark.parametrize(("correlation", "expected"), [(1.0, [100, 0]), (0.0, [0, 100])])
    def test_the_correlation_may_be_complete_or_turned_round(self, correlation, expected):
        made = composite(classes=[0, 1], correlation=correlation)
        counts = np.bincount(
            made.train.labels * 2 + made.train.attributes["background"], minlength=4
        )
        assert counts.tolist() == [*expected, *reversed(expected)]

    def test_what_is_not_matched_is_shared_by_all_other_backgrounds(self):
        made = composite(coloured(["red", "blue", "green", "cyan"], SIZE), correlation=0.71)
        kinds = made.train.attributes["background"][made.train.labels == 1]
        assert np.bincount(kinds).tolist() == [9, 71, 10, 10]

    def test_counts_can_be_given_like_those_of_waterbirds(self):
        made = composite(classes=[2, 0], counts=[[70, 4], [2, 21]])
        groups = groups_by(made, ["label", "background"])
        assert groups.names == ("c, red", "c, blue", "a, red", "a, blue")
        assert np.bincount(groups.train).tolist() == [70, 4, 2, 21]
        assert groups.minority == {1, 2}
        assert (made.train.ids % 3 == np.array([2, 0])[made.train.labels]).all()

    def test_every_test_image_is_there_on_every_background(self):
        made = composite(classes=[0, 1])
        pairs = set(zip(made.test.ids, made.test.attributes["background"], strict=True))
        shown = [i for i in range(300, 330) if (i - 300) % 3 < 2]
        assert pairs == {(i, kind) for i in shown for kind in (0, 1)}
        assert len(made.test) == 40

    def test_no_image_is_in_training_twice_or_in_both_sets(self):
        made = composite()
        assert len(set(made.train.ids)) == 300
        assert not set(made.train.ids) & set(made.test.ids)

    def test_the_seed_draws_who_is_where(self):
        first, again, other = (composite(seed=seed).train for seed in (1, 1, 2))
        assert np.array_equal(first.inputs, again.inputs)
        assert not np.array_equal(first.ids, other.ids)


class TestLooks:
    def test_the_background_is_seen_where_the_object_is_black(self):
        made = composite()
        for image, kind, number in zip(
            made.train.inputs, made.train.attributes["background"], made.train.ids, strict=True
        ):
            square = shapes(300).inputs[number, 0] == 255
            assert (image[:, square] == 255).all()
            colour = ((255, 0, 0), (0, 0, 255))[kind]
            assert (image[:, ~square] == np.array(colour)[:, None]).all()

    def test_side_by_side_both_are_halved(self):
        made = composite(photographed(DIGITS, [1, 3]), layout="beside", classes=[0])
        assert made.input_shape == (1, 2, 4)
        for image, kind, number in zip(
            made.train.inputs, made.train.attributes["background"], made.train.ids, strict=True
        ):
            assert (image[0, :, 2:] == (60, 140)[kind]).all()
            wide = number % 2 == 0
            assert image[0, :, :2].tolist() == [[64, 128 if wide else 64]] * 2

    def test_photographs_for_training_and_for_testing_are_different_ones(self):
        made = composite(photographed(DIGITS, [1, 3]))
        corners = [
            dict(zip(part.attributes["background"].tolist(), part.inputs[:, 0, 0, 0], strict=True))
            for part in (made.train, made.test)
        ]
        assert corners == [{0: 60, 1: 140}, {0: 50, 1: 130}]
        assert made.attributes["background"] == ("1", "3")

    def test_textures_differ_from_each_other_and_are_shifted(self):
        names = ["horizontal", "vertical", "diagonal", "checks"]
        paint = textured(names, SIZE, brightness=0.5).train
        rng = np.random.default_rng(0)
        painted = paint(np.repeat(np.arange(4), 50), rng).reshape(4, 50, 4, 4)
        assert set(np.unique(painted)) == {0, 128}
        assert (painted.mean(axis=(1, 2, 3)) == 64).all()
        assert (painted[0].std(axis=2) == 0).all()
        assert (painted[1].std(axis=1) == 0).all()
        assert (painted[2, :, 1:, :-1] == painted[2, :, :-1, 1:]).all()
        patterns = [{image.tobytes() for image in kind} for kind in painted]
        assert [len(kind) for kind in patterns] == [4, 4, 4, 8]
        assert len(set.union(*patterns)) == 20


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"classes": [0, 3]}, "dataset.classes needs classes from 0 to 2, got 3"),
        ({"counts": [[1, 2]]}, "dataset.counts needs 3 rows (classes) of 2 numbers (backgrounds)"),
        (
            {"classes": [1], "counts": [[99, 2]]},
            "dataset.counts asks for 101 images of class 1, shapes has 100",
        ),
        (
            {"backgrounds": coloured(["red"], (5, 4))},
            "the foreground has 4 × 4 pixels, the background 5 × 4: they must have the same size",
        ),
    ],
)
def test_what_there_is_not_is_refused(options, fault):
    with pytest.raises(DataError) as error:
        composite(**options)
    assert str(error.value) == fault


def test_backgrounds_of_a_class_that_does_not_exist_are_refused():
    with pytest.raises(DataError, match=r"background.classes needs classes from 0 to 3, got 4"):
        photographed(DIGITS, [0, 4])


def test_images_of_an_odd_size_cannot_be_halved():
    part = Examples(np.zeros((2, 1, 5, 4), dtype=np.uint8), np.zeros(2, dtype=int))
    odd = Dataset("odd", part, part, ("a",))
    with pytest.raises(DataError, match="5 × 4 pixels cannot be halved"):
        load_composite(odd, coloured(["red"], (5, 4)), np.random.default_rng(0), layout="beside")
