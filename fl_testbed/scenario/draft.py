"""A scenario as plain data that remembers where each key was written: YAML files, read.

What a key stands for is not known here: :mod:`fl_testbed.scenario.loading` makes scenarios of it.
"""

import os
import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import yaml
from yaml.constructor import ConstructorError

from fl_testbed.scenario.faults import EXPANSION_KEYS, Fault, ScenarioError, short
from fl_testbed.scenario.naming import beside
from fl_testbed.scenario.yaml_floats import Loader

TEXT, DATE, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "merge"))
MOST_VALUES = 1_000_000  # in one file
INSIDE = {
    "while parsing a flow mapping": "in a mapping in braces",
    "while parsing a flow sequence": "in a list in brackets",
    "while parsing a block mapping": "in a mapping",
    "while parsing a block collection": "in a list",
    "while scanning a simple key": "in a key",
    "while scanning a quoted scalar": "in a text in quotes",
}
"""What the YAML library was reading, in plain words."""
Key = tuple[str, ...]


class Draft(dict[str, Any]):
    """A mapping that knows where each of its keys was written, as do the mappings nested in it."""

    def __init__(self, where: str = "") -> None:
        super().__init__()
        self.where = where
        """The file, if this is a whole scenario; else empty."""
        self.origins: dict[str, str] = {}
        """File and line by key."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file, laid over the files that it extends.

        Raises:
            ScenarioError: If one of them is not there, or is not YAML.
        """
        draft = cls(str(path))
        _read(draft, path, ())
        return draft

    def has(self, key: Key) -> bool:
        """Whether there is such a key."""
        node: Any = self
        for part in key:
            if not isinstance(node, Draft) or part not in node:
                return False
            node = node[part]
        return True

    def origin(self, key: Sequence[str | int]) -> str:
        """Return where a key, or else the nearest one around it, was written."""
        node, where = self, self.where
        for part in key:
            if isinstance(node, Draft):
                where = node.origins.get(str(part), where)
                node = node.get(str(part))
            elif isinstance(node, list) and str(part).isdecimal() and int(part) < len(node):
                node = node[int(part)]
            else:
                break
        return where

    def replace(self, key: Key, value: Any, origin: str) -> None:
        """Set a dotted key to a value, replacing whatever was there."""
        around = self._around(key, origin)
        around[key[-1]], around.origins[key[-1]] = deepcopy(value), origin

    def overlay(self, key: Key, value: Any, origin: str) -> None:
        """Set a dotted key: mappings merge, unless the new one names a ``kind``."""
        around = self._around(key, origin)
        old = around.get(key[-1])
        if isinstance(value, Draft) and isinstance(old, Draft) and "kind" not in value:
            for name, inner in value.items():
                old.overlay((name,), inner, value.origins[name])
            around.origins[key[-1]] = origin
        else:
            around.replace(key[-1:], value, origin)

    def _around(self, key: Key, origin: str) -> "Draft":
        node = self
        for part in key[:-1]:
            if not isinstance(node.get(part), Draft):
                node[part], node.origins[part] = Draft(), origin
            node = node[part]
        return node


class _Loader(Loader):
    """Reads mappings, whose keys are text, as drafts."""

    def construct_draft(self, node: yaml.Node) -> Iterator[Draft]:
        """Yield the draft, and fill it afterwards: its values are not read yet."""
        if not isinstance(node, yaml.MappingNode):  # a text tagged !!map
            raise ConstructorError(None, None, "this is no mapping", node.start_mark)
        draft = Draft()
        yield draft
        self.flatten_mapping(node)
        for name, value in node.value:
            draft[name.value] = self.construct_object(value)
            draft.origins[name.value] = _line(self.name, name.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_draft)


def _read(draft: Draft, path: Path, seen: tuple[str, ...]) -> None:
    """Lay one file, and before it the files that it extends, over a draft."""
    where = str(path)
    root, data = _parsed(_text_of(path), where)
    if root is None:
        raise ScenarioError(Fault(where, "", "is empty: a scenario needs at least a name"))
    if not isinstance(data, Draft):
        kind = "a list" if isinstance(data, list) else "a single value"
        text = f"needs a mapping (key: value), got {kind}"
        raise ScenarioError(Fault(_line(where, root.start_mark), "", text))
    if "extends" in data:
        bases = data.pop("extends")
        for base in bases if isinstance(bases, list) and bases else [bases]:
            _extend(draft, path, base, data.origins["extends"], (*seen, os.path.realpath(path)))
    for key, value in data.items():
        write = draft.replace if key in EXPANSION_KEYS else draft.overlay
        write((key,), value, data.origins[key])


def _extend(draft: Draft, path: Path, base: Any, where: str, seen: tuple[str, ...]) -> None:
    if not isinstance(base, str) or not base:
        text = f"needs the name of a file, or a list of such names, got {short(base)}"
        raise ScenarioError(Fault(where, "extends", text))
    base_path = path.parent / base
    if not os.path.exists(base_path):  # False also for a name that no file can have
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


def _parsed(text: str, where: str) -> tuple[yaml.Node | None, Any]:
    """Return the tree of a YAML text, and what it says: mappings as drafts, keys unique."""
    try:
        root = yaml.compose(text, Loader=Loader)
        faults = [] if root is None else list(_faults_of(root, where))
        loader = _Loader("")
        loader.name = where
        data = None if root is None or faults else loader.construct_document(root)
    except yaml.YAMLError as fault:
        raise ScenarioError(_yaml_fault(where, fault)) from None
    except RecursionError:
        raise ScenarioError(Fault(where, "", "is nested too deeply")) from None
    if faults:
        raise ScenarioError(*faults)
    return root, data


def _faults_of(root: yaml.Node, where: str) -> Iterator[Fault]:
    if _n_values(root, {}) > MOST_VALUES:
        text = f"has more than {MOST_VALUES:,} values, counting those that aliases (*NAME) repeat"
        yield Fault(where, "", text)
    else:
        yield from _prepared(root, (), where, ())


def _no_such_file(path: Path) -> str:
    return f"no such file{beside(path, '*.y*ml')}"


def _line(where: str, mark: yaml.Mark | None) -> str:
    """Return a line of a file; values of the command line have none."""
    return f"{where}:{mark.line + 1}" if mark and where != "--set" else where


def _yaml_fault(where: str, fault: yaml.YAMLError) -> Fault:
    begun, mark = (getattr(fault, f"{name}_mark", None) for name in ("context", "problem"))
    line = _line(where, mark)
    context, problem = getattr(fault, "context", None), getattr(fault, "problem", None)
    problem = re.sub("'<stream end>'|unexpected end of stream", "the end", problem or str(fault))
    if "'\\t'" in problem:
        return Fault(line, "", "is not YAML: a line is indented with tabs, use spaces")
    if "found '<block mapping start>'" in problem:
        problem = "the line is indented differently from those around it"
    elif "mapping values are not allowed" in problem:
        problem = "a key cannot stand here, check the indentation, or quote text that has a colon"
    elif "could not find expected ':'" in problem:  # noticed only where the next line begins
        line = _line(where, begun)
        problem = "expected a key, a colon and a space, such as rounds: 10"
    elif "that cannot start any token" in problem:
        problem = problem.replace("that cannot start any token", "where text begins, quote it")
    elif context:
        begins = ""
        if begun and mark and begun.line != mark.line:
            begins = f" that begins in line {begun.line + 1}"
        problem = f"{INSIDE.get(context, context)}{begins}, {problem}"
    return Fault(line, "", f"is not YAML: {problem.splitlines()[0]}")


def _n_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a tree has with its aliases expanded: nine lines may make 9^9."""
    if id(node) not in known:
        known[id(node)] = 1  # counted where a node contains itself
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
        yield Fault(line, ".".join(key), "contains itself: write its values out")
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            line = _line(where, name.start_mark)
            if not isinstance(name, yaml.ScalarNode):
                yield Fault(line, ".".join(key), "needs text as key, got a list or a mapping")
                continue
            if name.tag != MERGE:
                name.tag = TEXT  # 'on' is a key, not the truth value that YAML makes of it
            inner = (*key, name.value)
            if name.value in seen:
                yield Fault(line, ".".join(inner), "is given twice")
            seen.add(name.value)
            first, _, rest = name.value.partition(":")
            is_bare = name.style is None and value.value == ""
            if node.flow_style and is_bare and first and rest:  # {lr:0.1} is a key without value
                text = f"needs a space after the colon: write {first}: {rest}"
                yield Fault(line, ".".join((*key, first)), text)
            yield from _prepared(value, inner, where, (*around, node))
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            yield from _prepared(value, (*key, str(place)), where, (*around, node))
    elif node.tag == DATE:
        node.tag = TEXT


def parse_settings(settings: Sequence[str]) -> list[tuple[Key, Any]]:
    """Return the keys and values of ``KEY=VALUE`` texts.

    Raises:
        ScenarioError: With a fault for each text that is not of this form.
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


def sets_seed(settings: Sequence[str]) -> bool:
    """Whether ``KEY=VALUE`` texts set the seed, and so leave out a sweep's other seeds."""
    return any(key == ("seed",) for key, _ in parse_settings(settings))


def _parse_setting(text: str) -> tuple[Key, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise ScenarioError(Fault("--set", text, "needs KEY=VALUE, such as rounds=10"))
    try:
        _, data = _parsed(value, "--set")
    except ScenarioError as error:
        told = (Fault("--set", f.key or name, f"the value {f.text}") for f in error.faults)
        raise ScenarioError(*told) from None
    outer, dot, inner = name.strip().partition(".")
    if outer == "extends":
        text = "cannot be set here: write a scenario file that extends others, and run that"
        raise ScenarioError(Fault("--set", name, text))
    if outer == "sweep" and dot:
        return (outer, inner), data  # a sweep's own keys contain dots
    return tuple(name.strip().split(".")), data
