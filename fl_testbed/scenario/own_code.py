"""A user's own code in a scenario: a ``kind`` that says where a function is.

``file.py:name`` is in a file, relative to the scenario; ``package.module:name`` is wherever Python
finds it, or beside the scenario. Workers get the code by value (:func:`users_modules`), so that
nothing has to be packaged or copied to them. The hash of its source is part of the run's identity.
"""

import ast
import difflib
import hashlib
import importlib
import inspect
import os
import sys
import sysconfig
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, Union, get_args

import numpy as np
import torch
from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    PrivateAttr,
    Tag,
    model_validator,
)
from pydantic_core import CoreSchema

from clients.shard import Shard
from fl_testbed.data import DataError
from fl_testbed.scenario.files import beside
from fl_testbed.scenario.spec import Spec
from strategies.aggregation import TooFewClientsError

OURS, OWN = "(ours)", "(own)"
LONGEST_TEXT = 1000  # characters of an exception, which go into a table for each client and round
PATH = r"^[^:\s][^:]*:[A-Za-z_]\w*$"

OUR_PACKAGES = ("clients", "fl_testbed", "strategies")  # the testbed's own packages

_BESIDE: dict[str, Path] = {}
"""The folder of the scenario that named a package last, by the package's name."""
_FOLDERS: set[Path] = set()
"""The folders of scenarios that Python looks into because they name modules."""
_IMPORTED: dict[str, dict[Path, str]] = {}
"""The hashes of a package's files when they were imported, by the package's name."""


def is_own(kind: object) -> bool:
    """Whether a kind says where a user's function is, and is no name of ours."""
    return isinstance(kind, str) and ":" in kind


@dataclass(frozen=True)
class ByKind:
    """Of a union, such as ``Annotated[A | B | Own, BY_KIND]``: ``kind`` picks the class.

    The last class is the user's own. Of the others each has kinds of its own, or there is one.
    """

    is_own: Callable[[object], bool] = is_own
    """Whether a kind is the user's own."""

    def __get_pydantic_core_schema__(self, union: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Say it in pydantic's terms."""
        *ours, own = get_args(union)
        named = Annotated[Union[*ours], Field(discriminator="kind")] if ours[1:] else ours[0]
        either = Annotated[named, Tag(OURS)], Annotated[own, Tag(OWN)]
        return handler.generate_schema(Annotated[Union[*either], Discriminator(self._whose)])

    def _whose(self, value: Any) -> str:
        kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
        return OWN if self.is_own(kind) else OURS


BY_KIND = ByKind()


class OwnCodeError(RuntimeError):
    """A user's code failed; the text names its file and line."""


@dataclass(frozen=True)
class OwnCode:
    """A user's function and where it comes from."""

    path: Path
    """The file that defines it."""
    name: str
    module: str
    """The module to send by value; empty if it is part of an installed package."""
    sha256: str | None
    """Of the file, or of all Python files of its package; none of what is installed."""
    source: bytes | None
    """Of the file as it ran, of which run folders keep a copy; None where the scenario names no
    file but a module."""
    function: Callable[..., Any]

    @property
    def place(self) -> str:
        """File and line of the definition."""
        try:
            return f"{self.path}:{inspect.getsourcelines(self.function)[1]}"
        except (OSError, TypeError):
            return str(self.path)

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The function's parameters by name."""
        return dict(inspect.signature(self.function).parameters)

    def refused(self, wrong: str) -> OwnCodeError:
        """Say where the function is, and what is wrong with what it returned."""
        return OwnCodeError(f"{self.place}: {self.name} {wrong}")

    def blame(self, fault: BaseException) -> str:
        """Say what an exception was and which line of the user's it came from."""
        lines = [
            frame
            for frame in traceback.extract_tb(fault.__traceback__)
            if Path(frame.filename) == self.path
        ]
        where = f"{self.path}:{lines[-1].lineno}" if lines else self.place
        return f"{where}: {self.name} raised {_in_one_line(fault)}"


def _in_one_line(fault: BaseException) -> str:
    try:
        text = str(fault)
    except Exception:  # it is a user's class, whose text may fail as well
        text = "(it has no text)"
    text = " ".join(f"{type(fault).__name__}: {text}".split())
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"


def described(fault: BaseException) -> str:
    """Say what an exception was and, if it came from a user's code, in which line, in one line.

    The file's name alone: results are the same on any machine.
    """
    if isinstance(fault, OwnCodeError):  # which begins with the place
        place, _, what = str(fault).partition(": ")
        return f"{Path(place).name}: {what}"
    files = [(Path(f.filename), f.lineno) for f in traceback.extract_tb(fault.__traceback__)]
    own = [f" ({file.name}:{line})" for file, line in files if _is_users(file)]
    return _in_one_line(fault) + "".join(own[-1:])


def _is_users(file: Path) -> bool:
    ours = (Path(sys.modules[name].__path__[0]) for name in OUR_PACKAGES)
    return (
        file.is_absolute() and not _is_installed(file) and not any(map(file.is_relative_to, ours))
    )


class Guarded:
    """A user's function. If it raises, or returns what is of no use, it raises OwnCodeError, whose
    text says in one line what was wrong and where.

    Args:
        code: The function.
        complaint: Returns what is wrong with a result (the first argument) of a call with some
            arguments (the others), or an empty text.
        reads_only: Whether the tensors that it is handed are not its own to write to.
    """

    def __init__(
        self, code: OwnCode, complaint: Callable[..., str], reads_only: bool = False
    ) -> None:
        self._code, self._complaint, self._reads_only = code, complaint, reads_only
        self.__name__ = code.name
        self.__signature__ = inspect.signature(code.function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        handed = dict(zip(self.__signature__.parameters, args, strict=False)) | kwargs
        may_write = not self._reads_only or handed.get("out") is not None
        before = {} if may_write else _versions(handed)
        try:
            result = self._code.function(*args, **kwargs)
            wrong = self._complaint(result, *args, **kwargs)
        except (TooFewClientsError, DataError):
            raise  # those say what to do
        except (Exception, SystemExit) as fault:  # a user's code may raise anything
            raise OwnCodeError(self._code.blame(fault)) from fault
        after = _versions(handed) if before else {}
        written = [name for name, versions in after.items() if versions != before[name]]
        if written and not wrong:
            wrong = f"wrote to {written[0]!r}, which others read after it: take a copy, clone()"
        if wrong:
            raise self._code.refused(wrong)
        return result


def _versions(handed: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return how often each tensor, or those of a named tuple, were written to, as torch counts."""
    tensors = {
        name: value if isinstance(value, tuple) else [value] for name, value in handed.items()
    }
    return {
        name: [t._version for t in own if isinstance(t, torch.Tensor) and not t.is_inference()]
        for name, own in tensors.items()
    }


class OwnSpec(Spec):
    """A function of the user's own, and its arguments."""

    kind: Annotated[str, Field(json_schema_extra={"pattern": PATH})]  # where it is
    args: dict[str, Any] = Field(default_factory=dict)  # of the function or class, by name
    sha256: str | None = None  # of its source; a resolved scenario insists on it
    _code: OwnCode = PrivateAttr()

    facts: ClassVar[frozenset[str]] = frozenset()
    """What the testbed hands over to those parameters that name it."""
    place: ClassVar[str] = "kind"
    """The key that says where the function is."""
    first: ClassVar[str] = ""
    """What the function's first parameter is, where it is handed over by position."""
    reads_only: ClassVar[bool] = False
    """Whether the tensors that it is handed are read again after it."""

    @model_validator(mode="after")
    def _find(self) -> Self:
        if getattr(self, "_code", None) is not None:
            return self  # pydantic validates an instance again where it is put into another
        code = load(getattr(self, self.place))
        if self.sha256 not in (None, code.sha256):
            raise ValueError(
                f"{code.path} has changed since the scenario was resolved: take sha256 out to run "
                "it as it is now"
            )
        if wrong := self._misfit(code):
            raise ValueError(f"{code.place}: {code.name} {wrong}")
        self._code = code
        given = {"sha256": code.sha256}
        if code.source is not None:
            given[self.place] = f"{code.path.name}:{code.name}"
        for name, value in given.items():
            object.__setattr__(self, name, value)  # frozen, but nobody has seen it yet
        return self

    def _misfit(self, code: OwnCode) -> str:
        """Return what is wrong with the signature for what will be handed over, or nothing."""
        try:
            parameters = list(code.parameters.values())
        except (TypeError, ValueError):
            return "has no signature: put a function of your own around it"
        if self.first:
            if not parameters or parameters[0].kind not in (
                inspect.Parameter.POSITIONAL_ONLY,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
            ):
                return f"needs a first parameter, which is handed {self.first}"
            parameters = parameters[1:]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        offered = f"what is handed over by name: {', '.join(sorted(self.offered)) or 'nothing'}"
        for name in self.args:
            if name in self.offered:
                return f"cannot have {name!r} in args: it is {offered}"
            if name not in named and not takes_any:
                known = sorted(named - self.facts)
                return f"has no parameter {name!r} for args, it has: {', '.join(known) or 'none'}"
        for p in parameters:
            is_given = p.name in self.offered | self.args.keys() or p.default is not p.empty
            if not is_given and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
                why = self._untold(p.name) or f": give it in args. It is not {offered}"
                return f"needs {p.name!r}{why}"
        return ""

    def _untold(self, fact: str) -> str:
        """Return why a fact is not handed over, where there is more to say than that it is not."""
        return ""

    @property
    def offered(self) -> frozenset[str]:
        """The facts that this scenario really has."""
        return self.facts

    @property
    def code(self) -> OwnCode:
        """The function and where it comes from."""
        return self._code

    def names(self, *facts: str) -> bool:
        """Whether the function has a parameter for one of these facts."""
        return any(fact in self._code.parameters for fact in facts)

    def complaint(self, result: Any, *args: Any, **named: Any) -> str:
        """Return what is wrong with what the function returned for some arguments, or nothing."""
        return ""

    def guarded(self) -> Guarded:
        """Return the function; what goes wrong in it is told in one line."""
        return Guarded(self._code, self.complaint, self.reads_only)

    def with_args(self) -> Callable[..., Any]:
        """Return the function with its arguments bound."""
        return partial(self.guarded(), **self.args)

    def called(self, *args: Any, **facts: Any) -> Any:
        """Call the function with its arguments and those of the facts that it names."""
        named = {name: value for name, value in facts.items() if self.names(name)}
        return self.with_args()(*args, **named)


def load(kind: str) -> OwnCode:
    """Find a user's function.

    Raises:
        ValueError: If it is not there, or cannot be imported; the text says why.
    """
    where, _, name = kind.rpartition(":")
    if not where or not name.isidentifier():
        raise ValueError(f"needs package.module:name or file.py:name, got {kind!r}")
    if where.endswith(".py"):
        return _load_from_file(Path(where).absolute(), name)
    return _load_from_package(where, name)


def _load_from_file(path: Path, name: str) -> OwnCode:
    source = _read(path)
    _insist_on_no_neighbour(path, source, itself=path.stem)
    module = _from_file(path, source)
    digest = hashlib.sha256(source).hexdigest()
    return OwnCode(path, name, module.__name__, digest, source, _function_in(module, path, name))


def _load_from_package(where: str, name: str) -> OwnCode:
    package = _package_of(where)
    if package in sys.stdlib_module_names:
        raise ValueError(
            f"{where} is Python's own, and nothing in it is a rule, an attack or a model: name a "
            "function of yours or of an installed package"
        )
    module = _from_package(where)
    path = Path(module.__file__ or where)
    function = _function_in(module, path, name)
    if _is_installed(path) or package in OUR_PACKAGES:  # its version is the environment's
        return OwnCode(_defined_in(function, path), name, "", None, None, function)
    contents = {file: file.read_bytes() for file in _sources(module)}
    _insist_on_what_runs(package, contents)
    folders = [Path(place).parent for place in _places(sys.modules[package])]
    for folder in folders:
        for file, text in contents.items():
            _insist_on_no_neighbour(file, text, itself=package, folder=folder)
    named = {os.path.relpath(file, folders[0]): text for file, text in contents.items()}
    return OwnCode(path, name, package, digest_of(named), None, function)


def _function_in(module: types.ModuleType, path: Path, name: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if not callable(function):
        own = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        close = difflib.get_close_matches(name, own, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        what = "has no" if function is None else "has, but not to call,"
        raise ValueError(f"{path} {what} {name!r}{hint}")
    return function


def digest_of(package: Mapping[str, bytes]) -> str:
    """Return the hash of files by name: what moves from one to another changes it."""
    named = sorted((Path(name).as_posix(), text) for name, text in package.items())
    return hashlib.sha256(ascii(named).encode()).hexdigest()


def look_beside(folder: Path, kind: str) -> None:
    """Let Python look for a module in a scenario's folder, after all other places."""
    folder = folder.absolute()
    _BESIDE[_package_of(kind.rpartition(":")[0])] = folder
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        _FOLDERS.add(folder)


def _package_of(module: str) -> str:
    return module.partition(".")[0]


def _insist_on_what_runs(package: str, contents: Mapping[Path, bytes]) -> None:
    """Refuse a package that has changed since Python imported it, which Python does only once."""
    there = {Path(place).parent for place in _places(sys.modules[package])}
    own = _BESIDE.get(package)
    if own is not None and own not in there and there & _FOLDERS and _is_in(own, package):
        raise ValueError(
            f"there is a {package!r} beside the scenario, and that of {min(there)} has been "
            "imported: start again, or rename one"
        )
    known = _IMPORTED.setdefault(package, {})
    for file in {**known, **contents}:
        digest = hashlib.sha256(contents[file]).hexdigest() if file in contents else "gone"
        if known.setdefault(file, digest) != digest:
            raise ValueError(f"{file} has changed since it was imported: start again")


def _insist_on_no_neighbour(
    file: Path, source: bytes, *, itself: str, folder: Path | None = None
) -> None:
    """Refuse a file that imports from its folder what its hash does not cover.

    Python would find such a module only from some folders, and a change in it would leave runs as
    done before.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # who imports the file says where
    folder = folder or file.parent
    covered = {itself, *OUR_PACKAGES, *sys.stdlib_module_names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        for name in map(_package_of, names):
            if name not in covered and _lies_in(folder, name):
                raise ValueError(
                    f"{file}:{node.lineno}: imports {name!r}, which lies beside it and is no part "
                    "of the run's hash: put both into one package, package.module:name"
                )


def _lies_in(folder: Path, module: str) -> bool:
    """Whether a module is in a folder, and Python finds none of its name elsewhere."""
    elsewhere = [place for place in sys.path if Path(place).absolute() != folder]
    there = (folder / f"{module}.py").is_file() or (folder / module / "__init__.py").is_file()
    return there and PathFinder.find_spec(module, elsewhere) is None


def _places(package: types.ModuleType) -> list[str]:
    return list(getattr(package, "__path__", None) or [package.__file__ or ""])


def _is_in(folder: Path, package: str) -> bool:
    return PathFinder.find_spec(package, [str(folder)]) is not None


def _defined_in(function: Callable[..., Any], module: Path) -> Path:
    try:
        return Path(inspect.getsourcefile(function) or module)
    except TypeError:  # not Python
        return module


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        text = f"{path} cannot be read: {fault.strerror}{beside(path, '*.py')}"
        raise ValueError(text) from None


def _from_file(path: Path, source: bytes) -> types.ModuleType:
    """Run a file as a module of its own; the same content is run once."""
    # Not under its own name, which may be that of a library.
    name = f"own_{hashlib.sha256(bytes(path) + source).hexdigest()[:16]}"
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module
        try:
            exec(compile(source, str(path), "exec"), module.__dict__)
        except BaseException as fault:
            del sys.modules[name]
            if isinstance(fault, Exception | SystemExit):  # as of a script's last line
                raise ValueError(_import_fault(path, fault)) from None
            raise
    return sys.modules[name]


def _from_package(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as fault:
        if fault.name and (name == fault.name or name.startswith(f"{fault.name}.")):
            raise ValueError(
                f"there is no module {fault.name!r} beside the scenario, and none is installed; a "
                "file is named with its ending, file.py:name"
            ) from None
        raise ValueError(_import_fault(None, fault)) from None
    except (Exception, SystemExit) as fault:
        raise ValueError(_import_fault(None, fault)) from None


def _import_fault(path: Path | None, fault: BaseException) -> str:
    """Say which line of a user's failed while it was imported."""
    if isinstance(fault, SyntaxError):
        return f"{fault.filename}:{fault.lineno}: {type(fault).__name__}: {fault.msg}"
    frames = traceback.extract_tb(fault.__traceback__)
    own = [f for f in frames if path is None or Path(f.filename) == path]
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else str(path)
    return f"{where}: {_in_one_line(fault)}"


def _sources(module: types.ModuleType) -> list[Path]:
    """Return the files that a module's behaviour depends on: its package's, if it is the user's."""
    places = map(Path, _places(sys.modules[_package_of(module.__name__)]))
    return sorted(
        file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place])
    )


def _is_installed(path: Path) -> bool:
    places = {sysconfig.get_paths()[name] for name in ("purelib", "platlib", "stdlib")}
    return any(path.is_relative_to(place) for place in places)


def misshapen(result: Any, needed: type, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return what is wrong with a result that should be a named tuple with tensors of such shapes,
    and with what it wants to remember; nothing if all is well."""
    if not isinstance(result, needed):
        return f"must return {needed.__name__}, returned {type(result).__name__}"
    for name, shape in shapes.items():
        given = getattr(result, name)
        if not isinstance(given, torch.Tensor) or tuple(given.shape) != shape:
            what = tuple(given.shape) if isinstance(given, torch.Tensor) else "no tensor"
            return f"must return {name} of shape {shape}, returned {what}"
        if given.requires_grad:
            return f"must return {name} without a gradient: detach it"
    memory = getattr(result, "memory", {})
    if not isinstance(memory, dict):
        return f"must return memory as a dict, returned {type(memory).__name__}"
    for name, value in memory.items():
        if not isinstance(value, torch.Tensor):
            return f"must return memory of tensors, returned {type(value).__name__} as {name!r}"
    return ""


def ill_made_shard(result: Any, like: Shard) -> str:
    """Return what is wrong with a shard of other examples of the same kind, or nothing."""
    if not isinstance(result, Shard):
        return misshapen(result, Shard, {})
    n = len(result.labels)
    if n == 0:
        return "must return a shard with examples, returned none"
    columns = dict.fromkeys(("labels", "groups", "is_poisoned"), (n,))
    wrong = misshapen(result, Shard, {"inputs": (n, *like.inputs.shape[1:]), **columns})
    if not wrong and (lowest := result.labels.min().item()) < 0:
        return f"must return labels >= 0, returned {lowest}"  # torch's loss leaves -100 out
    return wrong


def flaw_of_inputs(inputs: Any, shape: tuple[int, ...], *, is_image: bool) -> str:
    """Return what is wrong with the inputs of a user's examples, or nothing."""
    if not isinstance(inputs, np.ndarray):
        return f"as an array, returned {type(inputs).__name__}"
    if inputs.shape[1:] != shape:
        return f"each of shape {shape}, as in training, returned {inputs.shape[1:]}"
    if inputs.dtype.kind != "f" or not inputs.size:
        return ""
    least, most = inputs.min(), inputs.max()
    if not np.isfinite([least, most]).all():
        return "without NaN or infinity"
    if is_image and not -1e-6 <= least <= most <= 1 + 1e-6:
        return f"as bytes or from 0 to 1, returned {least:.4g} to {most:.4g}"
    return ""


def ill_weighted(weights: torch.Tensor, *, may_be_none: bool) -> str:
    """Return what is wrong with the weights of clients, or nothing."""
    total = weights.double().sum().item()
    if (weights < 0).any() or not (abs(total - 1) < 1e-3 or (may_be_none and total == 0)):
        needed = "weights >= 0 of sum 1" + (", or all 0" if may_be_none else "")
        lowest = weights.min().item()
        returned = f"one of {lowest:.4g}" if lowest < 0 else f"a sum of {total:.4g}"
        return f"must return {needed}, returned {returned}"
    return ""


def own_specs(spec: object) -> Iterator[OwnSpec]:
    """Yield the user's own parts of a scenario."""
    if isinstance(spec, OwnSpec):
        yield spec
    if isinstance(spec, BaseModel):
        for name in type(spec).model_fields:
            yield from own_specs(getattr(spec, name))
    elif isinstance(spec, list):
        for item in spec:
            yield from own_specs(item)


def users_modules(spec: BaseModel) -> list[types.ModuleType]:
    """Return the modules that workers need by value to run a scenario."""
    names = dict.fromkeys(own.code.module for own in own_specs(spec) if own.code.module)
    return [sys.modules[name] for name in names]
