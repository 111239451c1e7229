"""Small files in the formats that publishers use, and the checks that every loader passes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from fl_testbed.data import Dataset


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_image(path: Path, value: int, size: tuple[int, int] = (6, 4)) -> None:
    """Write a colour PNG of one value, however the file is called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(content, "PNG")
    path.write_bytes(content.getvalue())


def values_of(images: np.ndarray) -> list[int]:
    """What one-valued images show."""
    return images[:, 0, 0, 0].tolist()


def assert_sound(dataset: Dataset) -> None:
    """What holds for every dataset, whatever its format."""
    ids = [part.ids for part in (dataset.train, dataset.test)]
    assert ids[0] is not None
    assert ids[1] is not None
    assert not set(ids[0].tolist()) & set(ids[1].tolist())
    for part, own in zip((dataset.train, dataset.test), ids, strict=True):
        assert len(set(own.tolist())) == len(own) == len(part.inputs) == len(part) > 0
        assert part.labels.dtype == np.int64
        assert part.labels.min() >= 0
        assert part.labels.max() < dataset.n_classes
        assert part.attributes.keys() == dataset.attributes.keys()
        for name, codes in part.attributes.items():
            assert len(codes) == len(part)
            assert codes.min() >= 0
            assert codes.max() < len(dataset.attributes[name])
        assert part.inputs.shape[1:] == dataset.input_shape
