"""From a YAML file and the command line to a list of typed scenarios."""

import itertools
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fl_testbed.scenario.faults import Fault, ScenarioError, describe, unknown_key
from fl_testbed.scenario.scenario import Scenario

EXPANSION_KEYS = ("extends", "variants", "sweep")
Key = tuple[str, ...]


class _Draft:
    """A scenario as plain data that remembers where each key was written."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.origins: dict[Key, str] = {}

    def copy(self) -> "_Draft":
        twin = _Draft()
        twin.data, twin.origins = deepcopy(self.data), dict(self.origins)
        return twin

    def has(self, key: Key) -> bool:
        node: Any = self.data
        for part in key:
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    def replace(self, key: Key, value: Any, origin: str) -> None:
        """Set a dotted key to a value, whatever was there."""
        self._around(key)[key[-1]] = deepcopy(value)
        self.origins[key] = origin

    def overlay(self, key: Key, value: Any, origin: str) -> None:
        """Set a dotted key: mappings merge, unless the new one names a ``kind``."""
        self._overlay(self._around(key), key, value, origin)

    def _around(self, key: Key) -> dict[str, Any]:
        node = self.data
        for part in key[:-1]:
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        return node

    def _overlay(self, node: dict[str, Any], key: Key, value: Any, origin: str) -> None:
        old = node.get(key[-1])
        if isinstance(value, dict) and isinstance(old, dict) and "kind" not in value:
            for name, inner in value.items():
                self._overlay(old, (*key, str(name)), inner, origin)
        else:
            node[key[-1]] = deepcopy(value)
        self.origins[key] = origin

    def origin(self, key: Sequence[str | int]) -> str:
        """Return where a key, or else the nearest mapping around it, was written."""
        parts = tuple(str(part) for part in key)
        for length in range(len(parts), -1, -1):
            if parts[:length] in self.origins:
                return self.origins[parts[:length]]
        return ""


def load_scenarios(path: Path, settings: Sequence[str] = ()) -> list[Scenario]:
    """Read a scenario file and expand its variants and sweep.

    A mapping laid over another (by ``extends`` or a variant) is merged with it, unless it names
    its ``kind``: then it replaces the other, whose parameters belong to another method. A file's
    own ``variants`` and ``sweep`` replace those of the file that it extends.

    Args:
        path: The YAML file.
        settings: ``KEY=VALUE`` texts of the command line, values in YAML. They replace the value
            in the base and in every variant that has the key, and a sweep of that key.

    Raises:
        ScenarioError: With every fault found.
    """
    draft = _read(path, ())
    parsed = [_parse_setting(text) for text in settings]
    for key, value in parsed:
        draft.replace(key, value, "--set")
    variants = _mapping(draft, "variants") or {"default": {}}
    sweep = _mapping(draft, "sweep")
    for key, value in parsed:
        if key[0] not in EXPANSION_KEYS and ".".join(key) in sweep:
            sweep[".".join(key)] = [value]
    for key in EXPANSION_KEYS:
        draft.data.pop(key, None)

    scenarios: list[Scenario] = []
    faults: dict[Fault, None] = {}  # ordered, without repetitions
    for name, overrides in variants.items():
        for fields in _sweep_points(draft, sweep):
            try:
                scenarios.append(_build(draft, str(name), overrides, parsed, fields))
            except ScenarioError as error:
                faults.update(dict.fromkeys(error.faults))
    if faults:
        raise ScenarioError(list(faults))
    return scenarios


def _build(
    base: _Draft,
    variant: str,
    overrides: Any,
    settings: list[tuple[Key, Any]],
    sweep_point: dict[str, Any],
) -> Scenario:
    draft = base.copy()
    where = base.origin(("variants", variant))
    if overrides is not None and not isinstance(overrides, dict):
        raise ScenarioError(
            [Fault(where, f"variants.{variant}", "needs a mapping of keys to values")]
        )
    for dotted, value in (overrides or {}).items():
        key = tuple(str(dotted).split("."))
        draft.overlay(key, value, base.origin(("variants", variant, str(dotted))))
    for key, value in settings:
        if key[0] not in EXPANSION_KEYS and draft.has(key):
            draft.replace(key, value, "--set")
    suffix = ""
    for dotted, value in sweep_point.items():
        draft.replace(tuple(dotted.split(".")), value, base.origin(("sweep", dotted)))
        if dotted != "seed":
            suffix += f",{dotted.split('.')[-1]}={_label(value)}"
    if variant != "default" or suffix:
        draft.replace(("variant",), (variant + suffix).removeprefix("default,"), where)
    try:
        scenario = Scenario.model_validate(draft.data)
    except ValidationError as error:
        described = [describe(detail, Scenario) for detail in error.errors()]
        raise ScenarioError(
            [
                Fault(draft.origin(key), ".".join(str(part) for part in key), text)
                for key, text in described
            ]
        ) from None
    contradictions = scenario.contradictions()
    if contradictions:
        raise ScenarioError(
            [Fault(draft.origin(key.split(".")), key, text) for key, text in contradictions]
        )
    return scenario


def _read(path: Path, seen: tuple[Path, ...]) -> _Draft:
    """Read one file on top of the file that it extends."""
    where = str(path)
    if path.resolve() in seen:
        raise ScenarioError([Fault(where, "extends", "a file cannot extend itself")])
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScenarioError([Fault(where, "", _no_such_file(path))]) from None
    except IsADirectoryError:
        raise ScenarioError([Fault(where, "", "is a folder: name a YAML file in it")]) from None
    except OSError as fault:
        raise ScenarioError([Fault(where, "", f"cannot be read: {fault.strerror}")]) from None
    except UnicodeDecodeError as fault:
        raise ScenarioError(
            [Fault(where, "", f"is not UTF-8 text (byte {fault.start}): save it as UTF-8")]
        ) from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as fault:
        raise ScenarioError([_yaml_fault(where, fault)]) from None
    if root is None:
        raise ScenarioError([Fault(where, "", "is empty: a scenario needs at least a name")])
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        line = root.start_mark.line + 1
        raise ScenarioError(
            [Fault(f"{where}:{line}", "", f"needs a mapping (key: value), got {kind}")]
        )
    data = yaml.SafeLoader(text).construct_document(root)
    origins = dict(_origins(root, (), where))
    repeated = [Fault(*fault) for fault in _repeated(root, (), where)]
    if repeated:
        raise ScenarioError(repeated)
    base = data.pop("extends", None)
    if base is not None and not isinstance(base, str):
        raise ScenarioError([Fault(origins[("extends",)], "extends", "needs the name of a file")])
    draft = _read(path.parent / base, (*seen, path.resolve())) if base else _Draft()
    draft.origins[()] = where
    for key, value in data.items():
        write = draft.replace if key in EXPANSION_KEYS else draft.overlay
        write((str(key),), value, origins[(str(key),)])
    draft.origins.update(origins)
    return draft


def _no_such_file(path: Path) -> str:
    folder = path.parent
    others = sorted(p.name for p in folder.glob("*.y*ml")) if folder.is_dir() else []
    there = f"; {folder} holds {', '.join(others)}" if others else ""
    return f"no such file{there}"


def _yaml_fault(where: str, fault: yaml.YAMLError) -> Fault:
    mark = getattr(fault, "problem_mark", None)
    line = f"{where}:{mark.line + 1}" if mark else where
    problem = getattr(fault, "problem", None) or str(fault)
    if "'\\t'" in problem:
        return Fault(line, "", "YAML cannot be indented with tabs: use spaces")
    return Fault(line, "", f"is not YAML: {problem.splitlines()[0]}")


def _origins(node: yaml.Node, key: Key, where: str) -> Iterator[tuple[Key, str]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = (*key, str(name.value))
            yield inner, f"{where}:{name.start_mark.line + 1}"
            yield from _origins(value, inner, where)


def _repeated(node: yaml.Node, key: Key, where: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(node, yaml.MappingNode):
        names = [str(name.value) for name, _ in node.value]
        for place, (name, value) in enumerate(node.value):
            inner = (*key, str(name.value))
            if str(name.value) in names[:place]:
                yield f"{where}:{name.start_mark.line + 1}", ".".join(inner), "is given twice"
            yield from _repeated(value, inner, where)


def _parse_setting(text: str) -> tuple[Key, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise ScenarioError([Fault("--set", text, "needs KEY=VALUE, such as rounds=10")])
    try:
        return tuple(name.strip().split(".")), yaml.safe_load(value)
    except yaml.YAMLError as fault:
        problem = str(getattr(fault, "problem", fault))
        raise ScenarioError([Fault("--set", name, f"the value is not YAML: {problem}")]) from None


def _mapping(draft: _Draft, key: str) -> dict[str, Any]:
    value = draft.data.get(key) or {}
    if not isinstance(value, dict):
        raise ScenarioError([Fault(draft.origin((key,)), key, "needs a mapping (key: value)")])
    return dict(value)


def _sweep_points(draft: _Draft, sweep: dict[str, Any]) -> list[dict[str, Any]]:
    for key, values in sweep.items():
        where, dotted = draft.origin(("sweep", key)), f"sweep.{key}"
        if not isinstance(values, list) or not values:
            raise ScenarioError([Fault(where, dotted, f"needs a list of values, got {values!r}")])
        if key.split(".")[0] not in Scenario.model_fields:
            text = unknown_key(key.split(".")[0], Scenario.model_fields)
            raise ScenarioError([Fault(where, dotted, text)])
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def _label(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", "-".join(map(str, value))))
    return str(value)
