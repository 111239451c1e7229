import json

import pytest
from published import assert_sound, write

from fl_testbed.data import DataError
from fl_testbed.data.sources import load_femnist


def pixels(value: float) -> list[float]:
    return [value] * 784


def leaf(users: dict[str, tuple[list[list[float]], list[int]]]) -> dict:
    return {
        "users": list(users),
        "num_samples": [len(labels) for _, labels in users.values()],
        "user_data": {user: {"x": x, "y": y} for user, (x, y) in users.items()},
    }


TRAIN = leaf({"f0_14": ([pixels(1.0), pixels(0.5)], [0, 61]), "f1_02": ([pixels(0.25)], [10])})
MORE = leaf({"f2_33": ([pixels(0.75)], [36])})
TEST = leaf({"f1_02": ([pixels(0.125)], [11])})


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "femnist" / "data"
    write(folder / "train" / "all_data_0_niid_0_keep_0_train_9.json", json.dumps(TRAIN))
    write(folder / "train" / "all_data_1_niid_0_keep_0_train_9.json", json.dumps(MORE))
    write(folder / "test" / "all_data_0_niid_0_keep_0_test_9.json", json.dumps(TEST))
    return folder


def test_leaf_s_json_is_read(folder):
    characters = load_femnist(folder.parents[1])
    assert_sound(characters)
    assert characters.train.inputs[:, 0, 9, 9].tolist() == [1, 0.5, 0.25, 0.75]
    names = [characters.classes[label] for label in characters.train.labels]
    assert names == ["0", "z", "A", "a"]


def test_a_writer_keeps_its_number_from_training_to_testing(folder):
    characters = load_femnist(folder.parents[1])
    assert characters.train.clients.tolist() == [0, 0, 1, 2]
    assert characters.test.clients.tolist() == [1]


def with_user(user: str, x: object, y: object) -> dict:
    return {"users": [user], "num_samples": [1], "user_data": {user: {"x": x, "y": y}}}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"users": [', ":1: is not JSON"),
        ({"users": [], "user_data": {}}, ": has no 'num_samples', so it is not LEAF's JSON"),
        ([], ": has no 'users', so it is not LEAF's JSON"),
        (leaf({"f0_14": ([pixels(1.0)], [0])}), ": writer f0_14 is in all_data_0_niid_0_keep_0"),
        (
            with_user("w", [pixels(1.0)], [62]),
            ": writer w: row 1: needs a class from 0 to 61, got 62",
        ),
        (with_user("w", [pixels(1.0)[1:]], [2]), ": writer w: row 1: needs 784 pixels"),
        (with_user("w", [pixels(1.5)], [2]), ": writer w: has pixels outside 0 to 1"),
        (with_user("w", [["a"] * 784], [2]), ": writer w: has pixels that are no numbers"),
        (
            with_user("w", [pixels(1.0)], [2, 3]),
            ": writer w: num_samples says 1, there are 1 images",
        ),
        ({"users": ["w"], "num_samples": [1], "user_data": {}}, ": writer w: has no x and y"),
    ],
)
def test_a_broken_file_is_one_line_with_writer_and_row(folder, content, fault):
    path = folder / "train" / "all_data_1_niid_0_keep_0_train_9.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError) as error:
        load_femnist(folder.parents[1])
    assert str(error.value).startswith(f"{path}{fault}")
    assert "\n" not in str(error.value)


def test_without_its_files_it_says_how_to_make_them(tmp_path):
    with pytest.raises(DataError, match=r"FEMNIST needs JSON files .* make it with LEAF"):
        load_femnist(tmp_path)
