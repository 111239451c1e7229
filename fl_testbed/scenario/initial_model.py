"""A trained model in a scenario: runs start from it in place of a fresh initialisation.

It is read once, where the scenario is loaded, and travels with the scenario: workers need no file.
Its hash is part of a run's identity, its path is not.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self
from weakref import WeakValueDictionary

from pydantic import BeforeValidator, PrivateAttr
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from fl_testbed.scenario.naming import beside, named
from fl_testbed.scenario.spec import Spec

COPY = "init.safetensors"
"""What run folders call it, so that their scenario can be run again."""
SHOWN = 5  # names of tensors in one line


class InitialModelError(ValueError):
    """A file does not fit the scenario's model; holds a text for each fault."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__("; ".join(texts))
        self.texts = list(texts)

    def __reduce__(self) -> tuple[type[Self], tuple[list[str]]]:
        return type(self), (self.texts,)  # by default it would be unpickled from its text


@dataclass(frozen=True)
class _File:
    """A file as it was when the scenario was loaded."""

    path: Path
    sha256: str
    content: bytes = field(repr=False)


_FILES: WeakValueDictionary[tuple[Path, str], _File] = WeakValueDictionary()  # variants share them


class InitSpec(Spec):
    """A safetensors file with the parameters of a trained model, as runs leave one behind."""

    path: str
    sha256: str | None = None  # hash of the file; if given, a changed file is refused
    _file: _File = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Read the file, and state its hash."""
        file = _read(Path(self.path))
        if self.sha256 not in (None, file.sha256):
            raise ValueError(
                f"{file.path} has changed since the scenario was resolved: remove sha256 to "
                "start from the file as it is now"
            )
        self._file = file
        vars(self).update(path=COPY, sha256=file.sha256)  # frozen, but nobody has seen it yet

    @property
    def source(self) -> Path:
        """Where the file was found."""
        return self._file.path

    @property
    def content(self) -> bytes:
        """The file."""
        return self._file.content

    def load_into(self, model: nn.Module) -> None:
        """Give a model these parameters.

        Raises:
            InitialModelError: If they do not fit the model, or are not finite.
        """
        given, needed = load(self.content), model.state_dict()
        faults = [f"{self.source} {text}" for text in _misfits(given, needed)]
        if faults:
            raise InitialModelError(faults)
        model.load_state_dict(given)


def _by_path(value: Any) -> Any:
    if isinstance(value, str):
        return {"path": value}
    if value is None or isinstance(value, dict | InitSpec):
        return value
    raise ValueError(f"needs the path of a safetensors file, got {value!r}")


Init = Annotated[
    InitSpec | None,
    BeforeValidator(_by_path, json_schema_input_type=str | InitSpec | None),
]
"""A path alone may stand for the whole mapping."""


def _read(path: Path) -> _File:
    try:
        content = path.read_bytes()
    except OSError as fault:
        text = f"{path} cannot be read: {fault.strerror}{beside(path, '*.safetensors')}"
        raise ValueError(text) from None
    try:
        load(content)
    except (SafetensorError, KeyError) as fault:  # KeyError: a dtype that torch lacks
        raise ValueError(f"{path} is not a safetensors file: {fault}") from None
    digest = hashlib.sha256(content).hexdigest()
    return _FILES.setdefault((path, digest), _File(path, digest, content))


def _misfits(given: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> Iterator[str]:
    for what, names in (("lacks", needed.keys() - given), ("has unknown", given.keys() - needed)):
        if names:
            yield f"{what} {named(sorted(names), SHOWN)}: is it the file of another model?"
    for name in (name for name in needed if name in given):
        ours, theirs = _kind(needed[name]), _kind(given[name])
        if ours != theirs:
            yield f"has {name} as {theirs}, the model needs {ours}"
        elif n_bad := int((~given[name].isfinite()).sum()):
            yield f"has {n_bad:,} numbers in {name} that are not finite"


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
