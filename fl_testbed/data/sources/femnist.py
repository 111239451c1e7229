"""FEMNIST: handwritten characters by writer, in LEAF's JSON."""

import json
import string
from pathlib import Path
from typing import Any

import numpy as np

from fl_testbed.data.dataset import DataError, Dataset, Examples, numbered
from fl_testbed.data.sources.fetching import remedy
from fl_testbed.data.sources.files import read_text

CLASSES = (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase)
SIDE = 28
FOLDERS = ("femnist/data", "femnist")


def load_femnist(data_dir: Path | None) -> Dataset:
    """Load FEMNIST: grey images of 28 × 28, 62 classes; natural clients are the writers.

    LEAF's train and test folders hold the split: of every writer's characters, or of the writers.

    Raises:
        DataError: If its files are not there or are broken.

    References:
        Caldas et al., LEAF: A Benchmark for Federated Settings, 2018.
    """
    files = _find(data_dir)
    writers: dict[str, int] = {}
    train, test = (_examples(files[part], writers) for part in ("train", "test"))
    return Dataset("femnist", *numbered(train, test), CLASSES)


def _find(data_dir: Path | None) -> dict[str, list[Path]]:
    looked = [] if data_dir is None else [data_dir / folder for folder in FOLDERS]
    for folder in looked:
        files = {part: sorted((folder / part).glob("*.json")) for part in ("train", "test")}
        if all(files.values()):
            return files
    where = "pass --data-dir DIR or set FL_TESTBED_DATA"
    if looked:
        where = f"looked in {' and '.join(map(str, looked))}"
    raise DataError(
        f"FEMNIST needs JSON files in the folders train and test of {' or '.join(FOLDERS)}: "
        f"{where}; {remedy('femnist')}"
    )


def _examples(paths: list[Path], writers: dict[str, int]) -> Examples:
    pixels: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    clients: list[np.ndarray] = []
    seen: dict[str, Path] = {}
    for path in paths:
        for writer, images, classes in _users(path):
            if writer in seen:
                raise DataError(f"{path}: writer {writer} is in {seen[writer].name} already")
            seen[writer] = path
            pixels.append(images)
            labels.append(classes)
            clients.append(np.full(len(classes), writers.setdefault(writer, len(writers))))
    if not labels:
        raise DataError(f"{paths[0]}: has no writers")
    return Examples(np.concatenate(pixels), np.concatenate(labels), clients=np.concatenate(clients))


def _users(path: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as fault:
        raise DataError(f"{path}:{fault.lineno}: is not JSON ({fault.msg})") from fault
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply to be LEAF's JSON") from None
    for key in ("users", "num_samples", "user_data"):
        if not isinstance(content, dict) or key not in content:
            raise DataError(f"{path}: has no {key!r}, so it is not LEAF's JSON")
    users, sizes = content["users"], content["num_samples"]
    if not isinstance(users, list) or not isinstance(sizes, list) or len(users) != len(sizes):
        raise DataError(f"{path}: users and num_samples must be lists of the same length")
    return [
        (str(user), *_user(path, user, size, content["user_data"]))
        for user, size in zip(users, sizes, strict=True)
    ]


def _user(path: Path, user: Any, size: Any, data: Any) -> tuple[np.ndarray, np.ndarray]:
    own = data.get(user) if isinstance(data, dict) else None
    if not isinstance(own, dict) or not {"x", "y"} <= own.keys():
        raise DataError(f"{path}: writer {user}: has no x and y in user_data")
    if not len(own["x"]) == len(own["y"]) == size:
        raise DataError(
            f"{path}: writer {user}: num_samples says {size}, there are {len(own['x'])} images "
            f"and {len(own['y'])} labels"
        )
    for row, (image, label) in enumerate(zip(own["x"], own["y"], strict=True), start=1):
        where = f"{path}: writer {user}: row {row}"
        if not isinstance(image, list) or len(image) != SIDE * SIDE:
            raise DataError(f"{where}: needs {SIDE * SIDE} pixels")
        if not isinstance(label, int) or not 0 <= label < len(CLASSES):
            raise DataError(f"{where}: needs a class from 0 to {len(CLASSES) - 1}, got {label!r}")
    try:
        pixels = np.array(own["x"], dtype=np.float32).reshape(-1, 1, SIDE, SIDE)
    except (TypeError, ValueError):
        raise DataError(f"{path}: writer {user}: has pixels that are no numbers") from None
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise DataError(f"{path}: writer {user}: has pixels outside 0 to 1")
    return pixels, np.array(own["y"], dtype=np.int64)
