"""A scenario as plain data that remembers where each key was written: YAML files, read.

What a key stands for is not known here: :mod:`fl_testbed.scenario.loading` makes scenarios of it.
"""

import os
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from fl_testbed.scenario.faults import EXPANSION_KEYS, Fault, ScenarioError, short
from fl_testbed.scenario.naming import beside
from fl_testbed.scenario.yaml_floats import Loader

TEXT, DATE, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "merge"))
MOST_VALUES = 1_000_000  # in one file
Key = tuple[str, ...]


@dataclass
class Draft:
    """Nested mappings, and the file and line that each key comes from."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file, laid over the files that it extends.

        Raises:
            ScenarioError: If one of them is not there, or is not YAML.
        """
        draft = cls()
        _read(draft, path, ())
        return draft

    def copy(self) -> Self:
        """Return another with the same keys."""
        return type(self)(deepcopy(self.data), dict(self.origins))

    def has(self, key: Key) -> bool:
        """Whether there is such a key."""
        node: Any = self.data
        for part in key:
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    def at(self, key: Key) -> Any:
        """Return the value of a key that is there."""
        node: Any = self.data
        for part in key:
            node = node[part]
        return node

    def replace(self, key: Key, value: Any, origin: str) -> None:
        """Set a dotted key to a value, whatever was there."""
        self._around(key, origin)[key[-1]] = deepcopy(value)
        self._written(key, origin)

    def overlay(self, key: Key, value: Any, origin: str) -> None:
        """Set a dotted key: mappings merge, unless the new one names a ``kind``."""
        self._overlay(self._around(key, origin), key, value, origin)

    def _around(self, key: Key, origin: str) -> dict[str, Any]:
        node = self.data
        for length, part in enumerate(key[:-1], start=1):
            if not isinstance(node.get(part), dict):
                node[part] = {}
                self._written(key[:length], origin)
            node = node[part]
        return node

    def _written(self, key: Key, origin: str) -> None:
        """Note where a key's whole value comes from; what was inside the old one is gone."""
        for inner in [k for k in self.origins if k[: len(key)] == key]:
            del self.origins[inner]
        self.origins[key] = origin

    def _overlay(self, node: dict[str, Any], key: Key, value: Any, origin: str) -> None:
        old = node.get(key[-1])
        if isinstance(value, dict) and isinstance(old, dict) and "kind" not in value:
            for name, inner in value.items():
                self._overlay(old, (*key, name), inner, origin)
            self.origins[key] = origin
        else:
            node[key[-1]] = deepcopy(value)
            self._written(key, origin)

    def origin(self, key: Sequence[str | int]) -> str:
        """Return where a key, or else the nearest mapping around it, was written."""
        parts = tuple(str(part) for part in key)
        for length in range(len(parts), -1, -1):
            if parts[:length] in self.origins:
                return self.origins[parts[:length]]
        return ""


def _read(draft: Draft, path: Path, seen: tuple[str, ...]) -> None:
    """Lay one file, and before it the files that it extends, over a draft."""
    where = str(path)
    text = _text_of(path)
    root = _compose(text, where)
    if root is None:
        raise ScenarioError(Fault(where, "", "is empty: a scenario needs at least a name"))
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        text = f"needs a mapping (key: value), got {kind}"
        raise ScenarioError(Fault(_line(where, root.start_mark), "", text))
    data = _construct(root, where)
    origins = dict(_origins(root, (), where))
    if "extends" in data:
        bases = data.pop("extends")
        for base in bases if isinstance(bases, list) and bases else [bases]:
            _extend(draft, path, base, origins[("extends",)], (*seen, os.path.realpath(path)))
    draft.origins[()] = where
    for key, value in data.items():
        write = draft.replace if key in EXPANSION_KEYS else draft.overlay
        write((key,), value, origins[(key,)])
    draft.origins.update(origins)


def _extend(draft: Draft, path: Path, base: Any, where: str, seen: tuple[str, ...]) -> None:
    if not isinstance(base, str) or not base:
        text = f"needs the name of a file, or a list of names, got {short(base)}"
        raise ScenarioError(Fault(where, "extends", text))
    base_path = path.parent / base
    if not os.path.exists(base_path):  # nor is there one of a name that no file can have
        raise ScenarioError(Fault(where, "extends", f"{base_path}: {_no_such_file(base_path)}"))
    if os.path.realpath(base_path) in seen:
        raise ScenarioError(Fault(where, "extends", "a file cannot extend itself"))
    _read(draft, base_path, seen)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = _no_such_file(path)
    except IsADirectoryError:
        text = "is a folder: name a YAML file in it"
    except OSError as fault:
        text = f"cannot be read: {fault.strerror}"
    except UnicodeDecodeError as fault:
        text = f"is not UTF-8 text (byte {fault.start}): save it as UTF-8"
    raise ScenarioError(Fault(str(path), "", text))


def _compose(text: str, where: str) -> yaml.Node | None:
    """Return the tree of a YAML text, its keys unique and all of them text."""
    try:
        root = yaml.compose(text, Loader=Loader)
        if root is not None and _n_values(root, {}) > MOST_VALUES:
            text = f"has more than {MOST_VALUES:,} values, those that *names repeat included"
            raise ScenarioError(Fault(where, "", text))
        faults = [] if root is None else list(_prepared(root, (), where, ()))
    except yaml.YAMLError as fault:
        raise ScenarioError(_yaml_fault(where, fault)) from None
    except RecursionError:
        raise ScenarioError(Fault(where, "", "is nested too deeply")) from None
    if faults:
        raise ScenarioError(*faults)
    return root


def _construct(root: yaml.Node, where: str) -> Any:
    try:
        return Loader("").construct_document(root)
    except yaml.YAMLError as fault:
        raise ScenarioError(_yaml_fault(where, fault)) from None
    except ValueError as fault:  # such as the integer 0x_
        raise ScenarioError(Fault(where, "", f"is not YAML: {fault}")) from None


def _no_such_file(path: Path) -> str:
    return f"no such file{beside(path, '*.y*ml')}"


def _line(where: str, mark: yaml.Mark | None) -> str:
    """Return a line of a file; values of the command line have none."""
    return f"{where}:{mark.line + 1}" if mark and where != "--set" else where


def _yaml_fault(where: str, fault: yaml.YAMLError) -> Fault:
    begun, mark = (getattr(fault, f"{name}_mark", None) for name in ("context", "problem"))
    line = _line(where, mark)
    parts = (getattr(fault, "context", None), getattr(fault, "problem", None))
    problem = " ".join(part for part in parts if part) or str(fault)
    if "'\\t'" in problem:
        return Fault(line, "", "YAML cannot be indented with tabs: use spaces")
    if "found '<block mapping start>'" in problem:
        problem = "indented otherwise than the lines around it"
    elif "mapping values are not allowed" in problem:
        problem = "a key where none can stand: see its indent, and the line before for a colon"
    elif begun and mark and begun.line != mark.line:
        problem = f"{problem.splitlines()[0]} (it begins in line {begun.line + 1})"
    return Fault(line, "", f"is not YAML: {problem.splitlines()[0]}")


def _origins(node: yaml.Node, key: Key, where: str) -> Iterator[tuple[Key, str]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = (*key, str(name.value))
            yield inner, _line(where, name.start_mark)
            yield from _origins(value, inner, where)


def _n_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a tree is once its aliases are written out: nine lines may be 9^9."""
    if id(node) not in known:
        known[id(node)] = 1  # of one that contains itself
        if isinstance(node, yaml.MappingNode):
            known[id(node)] += sum(_n_values(value, known) for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            known[id(node)] += sum(_n_values(value, known) for value in node.value)
    return known[id(node)]


def _prepared(
    node: yaml.Node, key: Key, where: str, around: tuple[yaml.Node, ...]
) -> Iterator[Fault]:
    """Turn keys and dates of a tree into plain text, as written; yield what cannot be read."""
    line = _line(where, node.start_mark)
    if any(node is outer for outer in around):
        yield Fault(line, ".".join(key), "contains itself: give the values in full")
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            line = _line(where, name.start_mark)
            if not isinstance(name, yaml.ScalarNode):
                yield Fault(line, ".".join(key), "a key must be text, not a list or a mapping")
                continue
            if name.tag != MERGE:
                name.tag = TEXT  # 'on' is a key, not the truth value that YAML makes of it
            inner = (*key, name.value)
            if name.value in seen:
                yield Fault(line, ".".join(inner), "is given twice")
            seen.add(name.value)
            yield from _prepared(value, inner, where, (*around, node))
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            yield from _prepared(value, (*key, str(place)), where, (*around, node))
    elif node.tag == DATE:
        node.tag = TEXT


def parse_settings(settings: Sequence[str]) -> list[tuple[Key, Any]]:
    """Return the keys and values of ``KEY=VALUE`` texts.

    Raises:
        ScenarioError: With the faults of all that are something else.
    """
    parsed: list[tuple[Key, Any]] = []
    faults: list[Fault] = []
    for text in settings:
        try:
            parsed.append(_parse_setting(text))
        except ScenarioError as error:
            faults += error.faults
    if faults:
        raise ScenarioError(*faults)
    return parsed


def _parse_setting(text: str) -> tuple[Key, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise ScenarioError(Fault("--set", text, "needs KEY=VALUE, such as rounds=10"))
    try:
        root = _compose(value, "--set")
        data = None if root is None else _construct(root, "--set")
    except ScenarioError as error:
        told = (Fault("--set", f.key or name, f"the value {f.text}") for f in error.faults)
        raise ScenarioError(*told) from None
    outer, dot, inner = name.strip().partition(".")
    if outer == "extends":
        text = "is a file's own: write a file that extends others, and run that"
        raise ScenarioError(Fault("--set", name, text))
    if outer == "sweep" and dot:
        return (outer, inner), data  # a sweep's keys are dotted themselves
    return tuple(name.strip().split(".")), data
