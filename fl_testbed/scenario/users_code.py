"""Where a user's code is, what it is called, and how it is found and run.

``file.py:name`` is in a file; ``package.module:name`` is wherever Python finds it, or beside the
scenario (:func:`look_beside`). The hash of its source is part of a run's identity.
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Self

from fl_testbed.scenario.naming import beside

LONGEST_TEXT = 1000  # characters of an exception, which go into a table for each client and round

OUR_PACKAGES = ("clients", "fl_testbed", "strategies")  # the testbed's own packages

_FOLDERS: set[Path] = set()
"""The folders of scenarios that Python looks into because they name modules."""
_IMPORTED: dict[str, dict[Path, str]] = {}
"""The hashes of a package's files when they were imported, by the package's name."""


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
    """Hash of the file, or of all Python files of its package; None for installed code."""
    source: bytes | None
    """The file's content as it ran, which run folders keep a copy of; None where the scenario names
    a module and no file."""
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

    def __deepcopy__(self, memo: dict[Any, types.ModuleType]) -> Self:
        """Return the function from a new module that runs the file anew; a scenario's functions in
        one file share it. A function of an imported module stays as it is."""
        if self.source is None:
            return self
        if self.module not in memo:
            try:
                memo[self.module] = _executed(self.module, self.path, self.source)
            except ValueError as fault:
                raise OwnCodeError(f"{fault} (the file is executed anew for each run)") from None
        return replace(self, function=_function_in(memo[self.module], self.path, self.name))

    def refused(self, wrong: str) -> OwnCodeError:
        """Say where the function is, and what is wrong with what it returned."""
        return OwnCodeError(f"{self.place}: {self.name} {wrong}")

    def blame(self, fault: BaseException) -> str:
        """Say what an exception was and which line of the user's code it came from."""
        where = _innermost_line(fault, self.path.__eq__) or self.place
        return f"{where}: {self.name} raised {_in_one_line(fault)}"


def _innermost_line(fault: BaseException, is_meant: Callable[[Path], bool]) -> str:
    """Return the last line that an exception passed in one of some files, as file:line, if any."""
    frames = traceback.extract_tb(fault.__traceback__)
    lines = [f"{f.filename}:{f.lineno}" for f in frames if is_meant(Path(f.filename))]
    return lines[-1] if lines else ""


def _in_one_line(fault: BaseException) -> str:
    try:
        text = str(fault)
    except Exception:  # it is a user's class, whose text may fail as well
        text = "(it has no text)"
    text = " ".join(f"{type(fault).__name__}: {text}".split())
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"


def described(fault: BaseException) -> str:
    """Say what an exception was and, if it came from a user's code, in which line, in one line.

    Only the file's name is given, not its path: results are the same on any machine.
    """
    if isinstance(fault, OwnCodeError):  # which begins with the place
        place, _, what = str(fault).partition(": ")
        return f"{Path(place).name}: {what}"
    line = _innermost_line(fault, _is_users)
    return _in_one_line(fault) + (f" ({Path(line).name})" if line else "")


def _is_users(file: Path) -> bool:
    ours = (Path(sys.modules[name].__path__[0]) for name in OUR_PACKAGES)
    return (
        file.is_absolute() and not _is_installed(file) and not any(map(file.is_relative_to, ours))
    )


def load(kind: str, folder: Path | None = None) -> OwnCode:
    """Find a user's function.

    Args:
        kind: Its file or module, and its name.
        folder: Of the scenario that names it by its module, if any does.

    Raises:
        ValueError: If it is not there, or cannot be imported; the text says why.
    """
    where, _, name = kind.rpartition(":")
    if not where or not name.isidentifier():
        raise ValueError(f"needs file.py:name or package.module:name, got {kind!r}")
    if where.endswith(".py"):
        return _load_from_file(Path(where).absolute(), name)
    return _load_from_package(where, name, folder)


def _load_from_file(path: Path, name: str) -> OwnCode:
    source = _read(path)
    _insist_on_no_neighbour(path, source, itself=path.stem)
    module = _from_file(path, source)
    digest = hashlib.sha256(source).hexdigest()
    return OwnCode(path, name, module.__name__, digest, source, _function_in(module, path, name))


def _load_from_package(where: str, name: str, beside: Path | None) -> OwnCode:
    package = _package_of(where)
    if package == "__main__":
        raise ValueError(
            "a function in a notebook's cell or a script cannot be sent to other processes: write "
            "it to a file (in a notebook with %%writefile my_rule.py), my_rule.py:name"
        )
    if package in sys.stdlib_module_names:
        raise ValueError(
            f"{where} is part of Python: name a function of yours or of an installed package"
        )
    module = _from_package(where)
    path = Path(module.__file__ or where)
    function = _function_in(module, path, name)
    if _is_installed(path) or package in OUR_PACKAGES:  # its version is the environment's
        return OwnCode(_defined_in(function, path), name, "", None, None, function)
    contents = {file: file.read_bytes() for file in _sources(module)}
    _insist_on_what_runs(package, contents, beside)
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
        what = f"has no {name!r}" if function is None else f"has a {name!r}, but not a function"
        raise ValueError(f"{path} {what}{hint}")
    return function


def digest_of(package: Mapping[str, bytes]) -> str:
    """Return a hash of named files; code that moves from one file to another changes it."""
    named = sorted((Path(name).as_posix(), text) for name, text in package.items())
    return hashlib.sha256(ascii(named).encode()).hexdigest()


def look_beside(folder: Path) -> None:
    """Let Python look for modules in a scenario's folder, after all other places."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        _FOLDERS.add(folder)


def _package_of(module: str) -> str:
    return module.partition(".")[0]


def _insist_on_what_runs(package: str, contents: Mapping[Path, bytes], beside: Path | None) -> None:
    """Refuse a package that has changed since Python imported it, which Python does only once, or
    that is not the one beside the scenario."""
    there = {Path(place).parent for place in _places(sys.modules[package])}
    if beside and beside not in there and there & _FOLDERS and _is_in(beside, package):
        raise ValueError(
            f"{package!r} lies beside the scenario, but that of {min(there)} has been imported: "
            "restart Python, or rename one"
        )
    known = _IMPORTED.setdefault(package, {})
    for file in {**known, **contents}:
        digest = hashlib.sha256(contents[file]).hexdigest() if file in contents else "gone"
        if known.setdefault(file, digest) != digest:
            raise ValueError(f"{file} has changed since it was imported: restart Python")


def _insist_on_no_neighbour(
    file: Path, source: bytes, *, itself: str, folder: Path | None = None
) -> None:
    """Refuse a file that imports from its folder what its hash does not cover.

    Python would find such a module only from some folders, and after a change in it runs would
    still count as done.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # whoever imports the file is told where
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
                    f"{file}:{node.lineno}: imports {name!r} beside it, whose changes would go "
                    "unnoticed: put both into one package, package.module:name"
                )


def _lies_in(folder: Path, module: str) -> bool:
    """Whether a module is in a folder, and Python finds none of that name elsewhere."""
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
    return sys.modules.get(name) or _executed(name, path, source)


def _executed(name: str, path: Path, source: bytes) -> types.ModuleType:
    """Run a file as a new module, which takes the place of an earlier one of its name."""
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses look their module up
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException as fault:
        del sys.modules[name]
        if isinstance(fault, Exception | SystemExit):  # SystemExit: a script's last line
            raise ValueError(_import_fault(path, fault)) from None
        raise
    return module


def _from_package(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as fault:
        if fault.name and (name == fault.name or name.startswith(f"{fault.name}.")):
            raise ValueError(
                f"there is no module {fault.name!r}, neither beside the scenario nor installed "
                "(a file is named with its ending, file.py:name)"
            ) from None
        raise ValueError(_import_fault(None, fault)) from None
    except (Exception, SystemExit) as fault:
        raise ValueError(_import_fault(None, fault)) from None


def _import_fault(path: Path | None, fault: BaseException) -> str:
    """Say which line of a user's code failed while it was imported."""
    if isinstance(fault, SyntaxError):
        return f"{fault.filename}:{fault.lineno}: {type(fault).__name__}: {fault.msg}"
    where = _innermost_line(fault, lambda file: path in (None, file)) or str(path)
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
