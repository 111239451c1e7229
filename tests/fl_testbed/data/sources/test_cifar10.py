import numpy as np
import pytest
from published import assert_sound

from fl_testbed.data import DataError
from fl_testbed.data.sources import load_cifar10
from fl_testbed.data.sources.cifar10 import TEST_FILE, TRAIN_FILES


@pytest.fixture
def folder(tmp_path):
    """Two images in each file: red ones of class 3, and of class 9 with one blue pixel."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    planes = np.zeros((2, 3, 1024), dtype=np.uint8)
    planes[0, 0] = 255
    planes[1, 2, 33] = 7  # row 1, column 1
    labels = np.array([3, 9], dtype=np.uint8)
    rows = np.concatenate([labels[:, None], planes.reshape(2, -1)], axis=1)
    for name in (*TRAIN_FILES, TEST_FILE):
        (folder / name).write_bytes(rows.tobytes())
    return folder


def test_the_binary_version_is_read(folder):
    cifar = load_cifar10(folder.parent)
    assert_sound(cifar)
    assert (len(cifar.train), len(cifar.test), cifar.n_classes) == (10, 2, 10)
    assert cifar.test.labels.tolist() == [3, 9]
    assert cifar.test.inputs[0, :, 5, 5].tolist() == [255, 0, 0]
    assert cifar.test.inputs[1, :, 1, 1].tolist() == [0, 0, 7]
    assert cifar.test.inputs[1].sum() == 7


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda content: content[:-1], "needs rows of 3073 bytes, has 6,145 bytes"),
        (lambda content: b"", "needs rows of 3073 bytes, has 0 bytes"),
        (lambda content: content[:3073] + b"\x0a" + content[3074:], "row 2: needs a class from 0"),
    ],
)
def test_a_broken_file_is_one_line_with_the_row(folder, change, fault):
    path = folder / TRAIN_FILES[2]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError) as error:
        load_cifar10(folder.parent)
    assert str(error.value).startswith(f"{path}: {fault}")


def test_the_pickled_version_is_not_read(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cos\nsystem\n(S'x'\ntR.")
    with pytest.raises(DataError, match=r"binary version.* data fetch cifar10"):
        load_cifar10(tmp_path)
