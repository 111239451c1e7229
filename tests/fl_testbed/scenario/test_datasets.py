"""What decides on a dataset's examples, and datasets made of others."""

import re
from unittest.mock import create_autospec

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from fl_testbed.data import Dataset
from fl_testbed.data.sources import Meanings
from fl_testbed.scenario.datasets import AnyDatasetSpec, DatasetSpec
from fl_testbed.scenario.minorities import AttributesSpec
from fl_testbed.scenario.users_code import OwnCodeError


def spec(**keys) -> DatasetSpec:
    return TypeAdapter(AnyDatasetSpec).validate_python(keys)


def load(**keys) -> Dataset:
    return spec(**keys).load(None, np.random.default_rng(0))


class TestIdentity:
    def test_groups_do_not_decide_on_the_examples_and_classes_do(self):
        plain, turned = spec(kind="mnist"), spec(kind="mnist", minority={"kind": "none"})
        assert plain.identity(0) == turned.identity(0)
        assert plain.identity(0) != spec(kind="fashion_mnist").identity(0)
        assert plain.identity(0) != spec(kind="mnist", long_tail={"ratio": 2}).identity(0)
        faces = spec(kind="fairface")
        assert faces.identity(0) != spec(kind="fairface", target="age").identity(0)

    @pytest.mark.parametrize(
        ("keys", "drawn"),
        [
            ({"kind": "digits"}, True),
            ({"kind": "mnist"}, False),
            ({"kind": "adult"}, False),
            ({"kind": "mnist_writers"}, True),
            ({"kind": "compas"}, True),
            ({"kind": "image_folder", "folder": "leaves"}, True),
            ({"kind": "image_folder", "folder": "leaves", "split": "part"}, False),
            ({"kind": "csv", "file": "people.csv"}, True),
            ({"kind": "csv", "file": "people.csv", "split": "part"}, False),
        ],
    )
    def test_the_seed_does_where_it_draws_the_test_set(self, keys, drawn):
        assert (spec(**keys).identity(0) != spec(**keys).identity(1)) == drawn


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("mnist_writers", {"part": "train", "population": "students", "test_fraction": 0.3}),
        ("celeba", {"target": "Male", "size": 16, "limit": 5}),
        ("fairface", {"target": "age", "size": 16, "limit": 5}),
        ("waterbirds", {"size": 16}),
        ("compas", {"test_fraction": 0.3}),
    ],
)
def test_every_key_reaches_who_reads_the_files(kind, keys, monkeypatch):
    own = spec(kind=kind, **keys)
    reader = create_autospec(own.function)
    monkeypatch.setattr(type(own), "function", staticmethod(reader))
    own.read(None, np.random.default_rng(0))
    assert reader.call_args.kwargs == keys


@pytest.mark.parametrize(
    ("kind", "names", "keys"),
    [
        (
            "image_folder",
            {"folder": "leaves"},
            {"table": "t", "image": "i", "size": 8, "channels": 1},
        ),
        ("csv", {"file": "f"}, {"leave_out": ["a"], "categories": ["b"], "logarithmic": ["c"]}),
    ],
)
def test_every_key_reaches_who_reads_a_users_own_files(kind, names, keys, monkeypatch):
    said = {"label": "l", "attributes": ["x"], "client": "c", "split": "s", "test_fraction": 0.3}
    own = spec(kind=kind, **names, **said, **keys)
    reader = create_autospec(own.function)
    monkeypatch.setattr(type(own), "function", staticmethod(reader))
    own.read(None, np.random.default_rng(0))
    meanings = Meanings("l", ["x"], "c", "s", 0.3)
    assert reader.call_args.kwargs == {**names, "meanings": meanings, **keys}


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"attributes": ["sex", "sex"]}, "needs each column only once"),
        ({"attributes": ["cured"]}, "must not have the label"),
        ({"attributes": ["label"]}, "must not have the label"),
        (
            {"categories": ["ward"], "logarithmic": ["ward"]},
            "must not have columns that are also in categories",
        ),
    ],
)
def test_a_users_columns_mean_one_thing_each(keys, fault):
    with pytest.raises(ValidationError, match=fault):
        spec(kind="csv", file="people.csv", label="cured", **keys)


def test_classes_are_thinned_out_where_asked_for():
    full, thinned = load(kind="digits"), load(kind="digits", long_tail={"ratio": 100})
    sizes = np.bincount(thinned.train.labels)
    assert sizes[0] == np.bincount(full.train.labels)[0]
    assert sizes[9] == np.bincount(full.train.labels)[9] // 100
    assert len(thinned.test) < len(full.test)
    whole = load(kind="digits", long_tail={"ratio": 100, "test": False})
    assert len(whole.test) == len(full.test)


class TestComposite:
    digits = {"kind": "digits"}  # noqa: RUF012 (nobody changes it)
    colours = {"kind": "colours", "colours": ["red", "green"]}  # noqa: RUF012 (nobody changes it)

    @pytest.mark.parametrize(
        ("background", "names", "shape"),
        [
            (colours, ("red", "green"), (3, 8, 8)),
            ({"kind": "textures", "textures": ["checks"]}, ("checks",), (1, 8, 8)),
            ({"kind": "images", "dataset": digits, "classes": [0, 1]}, ("0", "1"), (1, 8, 8)),
        ],
    )
    def test_it_is_built_from_the_datasets_it_names(self, background, names, shape):
        made = load(kind="composite", foreground=self.digits, background=background, classes=[3, 5])
        assert made.classes == ("3", "5")
        assert made.attributes == {"background": names}
        assert made.input_shape == shape
        assert len(made.test) == len(names) * np.isin(load(kind="digits").test.labels, [3, 5]).sum()

    def test_textures_are_as_bright_as_asked_for(self):
        checks = {"kind": "textures", "textures": ["checks"], "brightness": 0.2}
        made = load(kind="composite", foreground=self.digits, background=checks)
        assert (made.train.inputs == 51).any()

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            (
                {"foreground": {"kind": "digits", "minority": {"kind": "none"}}},
                "minority belongs to the composite",
            ),
            ({"classes": [1, 1]}, "classes needs each class only once"),
            ({"foreground": {"kind": "adult"}}, "does not match any of the expected tags"),
            ({"correlation": 1.2}, "less than or equal to 1"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, change, fault):
        keys = {"kind": "composite", "foreground": self.digits, "background": self.colours}
        with pytest.raises(ValidationError, match=fault):
            spec(**(keys | change))


class TestDominoes:
    def test_a_garment_stands_beside_a_digit_in_the_numbers_asked_for(self, data_dir):
        made = spec(kind="dominoes").load(data_dir, np.random.default_rng(0))
        assert made.input_shape == (1, 14, 28)
        assert made.classes == ("Sandal", "Sneaker")
        groups = AttributesSpec(by=["label", "digit"]).build(made)
        assert groups.names == ("Sandal, 0", "Sandal, 1", "Sneaker, 0", "Sneaker, 1")
        assert np.bincount(groups.train).tolist() == [3498, 184, 56, 1057]
        assert np.bincount(groups.test).tolist() == [1000] * 4
        assert groups.minority == {1, 2}
        # On the right, a 0 is empty in its middle, where the stroke of a 1 goes.
        middle = made.train.inputs[:, 0, 6:8, 20:22].mean(axis=(1, 2))
        assert ((middle > 100) == (made.train.attributes["digit"] == 1)).mean() > 0.95

    def test_a_correlation_takes_all_garments(self, data_dir):
        made = spec(kind="dominoes", garments=[3, 4], correlation=0.9).load(
            data_dir, np.random.default_rng(0)
        )
        codes = made.train.labels * 2 + made.train.attributes["digit"]
        assert np.bincount(codes).tolist() == [5400, 600, 600, 5400]

    def test_what_a_correlation_resolves_to_can_be_run_again(self):
        made = spec(kind="dominoes", correlation=0.9)
        assert spec(**made.model_dump(exclude_none=True)) == made

    @pytest.mark.parametrize(
        ("keys", "fault"),
        [
            ({"digits": [1, 1]}, "two different classes"),
            ({"correlation": 0.9, "counts": [[1, 1], [1, 1]]}, "got both"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, keys, fault):
        with pytest.raises(ValidationError, match=fault):
            spec(kind="dominoes", **keys)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("labels = labels > 0", "train.labels as an array of int64 of shape (4,), returned bool"),
        ("labels = labels - 100", "from 0 to 1, returned -100 to -99"),
        ("codes = codes + 1", "train.attributes['site'] from 0 to 1, returned 1 to 2"),
        ("inputs = 255 * inputs.reshape(4, 1, 1, 2)", "bytes or from 0 to 1, returned 255 to 255"),
        ("inputs[0, 0] = np.nan", "train.inputs without NaN"),
        ("test['inputs'] = inputs[:, :1]", "test.inputs of shape (2,) each, as in training"),
        ("test['attributes'] = {}", "test.attributes['site'], which its attributes name"),
        (
            "train['clients'] = codes[:3]",
            "train.clients as an array of whole numbers of shape (4,)",
        ),
        ("train['ids'] = inputs[:, 0]", "train.ids as an array of whole numbers of shape (4,)"),
    ],
)
def test_a_users_dataset_that_is_ill_formed_is_refused(tmp_path, change, told):
    (tmp_path / "mine.py").write_text(f"""
import numpy as np
from fl_testbed.data import Dataset, Examples

def table():
    inputs = np.ones((4, 2), dtype=np.float32)
    labels = codes = np.array([0, 1, 0, 1])
    train, test = {{}}, {{}}
    {change}
    part = {{"inputs": inputs, "labels": labels, "attributes": {{"site": codes}}}}
    train, test = Examples(**{{**part, **train}}), Examples(**{{**part, **test}})
    return Dataset("table", train, test, ("a", "b"), {{"site": ("here", "there")}})
""")
    with pytest.raises(OwnCodeError, match=re.escape(told)):
        load(kind=f"{tmp_path / 'mine.py'}:table")
