from dataclasses import replace

import numpy as np
import pytest

from fl_testbed.data import Dataset, Examples, long_tailed


def examples(n_each: int, n_classes: int = 10, first: int = 0) -> Examples:
    """A file sorted by writer: each writer writes every class once."""
    labels = np.tile(np.arange(n_classes), n_each)
    rows = np.arange(len(labels))
    return Examples(rows[:, None], labels, {"size": rows % 3}, rows // n_classes, first + rows)


class TestTake:
    def test_everything_known_of_an_example_stays_with_it(self):
        some = examples(4).take(np.array([31, 2, 15]))
        assert some.inputs.flatten().tolist() == [31, 2, 15]
        assert some.labels.tolist() == [1, 2, 5]
        assert some.attributes["size"].tolist() == [1, 2, 0]
        assert some.clients is not None
        assert some.clients.tolist() == [3, 0, 1]
        assert some.ids is not None
        assert some.ids.tolist() == [31, 2, 15]

    def test_ids_are_the_file_s_however_often_examples_are_taken(self):
        some = examples(4, first=100).take(np.arange(10, 20)).take(np.array([3]))
        assert some.ids is not None
        assert some.ids.tolist() == [113]
        plain = Examples(np.zeros((5, 1)), np.zeros(5, dtype=int))
        again = plain.take(np.array([4, 1])).take(np.array([1]))
        assert again.ids is not None
        assert again.ids.tolist() == [1]


class TestUnitInputs:
    def test_bytes_become_fractions_of_255(self):
        examples = Examples(np.array([[0, 51, 255]], dtype=np.uint8), np.zeros(1, dtype=np.int64))
        inputs = examples.unit_inputs(slice(None))
        assert inputs.dtype == np.float32
        assert inputs[0].tolist() == pytest.approx([0, 0.2, 1])

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
    def test_writing_into_them_does_not_change_the_dataset(self, dtype):
        examples = Examples(np.ones((2, 3), dtype=dtype), np.zeros(2, dtype=np.int64))
        inputs = examples.unit_inputs(slice(None))
        assert inputs.dtype == np.float32
        inputs[:] = 0.5
        assert (examples.inputs == 1).all()


class TestLongTail:
    def test_each_class_is_half_the_one_before_with_ratio_512(self):
        # Karimireddy et al. keep int(n 0.5^i) of class i.
        dataset = Dataset("sorted", examples(6_000), examples(1_000), tuple("0123456789"))
        thinned = long_tailed(dataset, 512, test=True)
        train = [6_000, 3_000, 1_500, 750, 375, 187, 93, 46, 23, 11]
        assert np.bincount(thinned.train.labels).tolist() == train
        assert np.bincount(thinned.test.labels).tolist() == [
            1000,
            500,
            250,
            125,
            62,
            31,
            15,
            7,
            3,
            1,
        ]

    def test_the_test_set_stays_whole_where_it_shall(self):
        dataset = Dataset("sorted", examples(20), examples(5), tuple("0123456789"))
        assert len(long_tailed(dataset, 512, test=False).test) == 50

    def test_ratio_one_keeps_everything_in_order(self):
        dataset = Dataset("sorted", examples(20), examples(5), tuple("0123456789"))
        assert np.array_equal(long_tailed(dataset, 1, test=True).train.inputs, dataset.train.inputs)

    def test_examples_are_taken_from_the_whole_file(self):
        # Else the writers who come last would be lost with the rare classes.
        dataset = Dataset("sorted", examples(100), examples(5), tuple("0123456789"))
        train = long_tailed(dataset, 512, test=True).train
        assert train.clients is not None
        writers = train.clients[train.labels == 2]
        assert len(writers) == 25
        assert np.diff(writers).tolist() == [4] * 24

    def test_no_class_is_lost(self):
        dataset = Dataset("sorted", examples(10), examples(5), tuple("0123456789"))
        labels = long_tailed(dataset, 1e9, test=True).train.labels
        assert np.bincount(labels, minlength=10).min() == 1


def test_a_fingerprint_is_that_of_all_examples_in_their_order():
    part = examples(2)
    whole = Dataset("some", part, part, tuple("0123456789"), {"size": ("s", "m", "l")})
    turned = part.take(np.arange(len(part))[::-1])
    others = [
        replace(whole, train=turned),
        replace(whole, test=turned),
        replace(whole, attributes={"size": ("m", "s", "l")}),
        replace(whole, classes=whole.classes[::-1]),
        *(
            replace(whole, train=replace(part, **changed))
            for changed in (
                {"inputs": part.inputs.astype(np.int32)},
                {"inputs": part.inputs[:, None]},
                {"labels": part.labels[::-1]},
                {"attributes": {"size": part.attributes["size"] * 0}},
                {"clients": None},
            )
        ),
    ]
    again = Dataset("again", examples(2), examples(2), whole.classes, whole.attributes)
    assert again.fingerprint == whole.fingerprint
    assert len({whole.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(("shape", "images"), [((2, 1, 4, 4), True), ((2, 9), False)])
def test_images_have_three_dimensions(shape, images):
    part = Examples(np.zeros(shape), np.zeros(2, dtype=int))
    assert Dataset("some", part, part, ("a", "b")).holds_images is images
