"""From a YAML file and the command line to a list of typed scenarios."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fl_testbed.scenario.centralized import CentralizedScenario
from fl_testbed.scenario.faults import (
    EXPANSION_KEYS,
    Fault,
    ScenarioError,
    describe,
    models_in,
    short,
    unknown_key,
)
from fl_testbed.scenario.files import beside
from fl_testbed.scenario.own_code import is_own, look_beside
from fl_testbed.scenario.places import parts_of
from fl_testbed.scenario.scenario import Scenario
from fl_testbed.scenario.yaml_floats import Loader

TEXT, DATE, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "merge"))
UNFIT = re.compile(r"[^A-Za-z0-9._=,-]")  # for a part of a variant's name
MOST_VALUES = 1_000_000  # in one file
Key = tuple[str, ...]
AnyScenario = Scenario | CentralizedScenario
"""The kinds of scenario; ``kind`` picks the class, and without it a scenario is federated."""
S = TypeVar("S", bound=AnyScenario)


@dataclass
class _Draft:
    """A scenario as plain data that remembers where each key was written."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, str] = field(default_factory=dict)

    def copy(self) -> "_Draft":
        return _Draft(deepcopy(self.data), dict(self.origins))

    def has(self, key: Key) -> bool:
        node: Any = self.data
        for part in key:
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    def at(self, key: Key) -> Any:
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


def load_files(
    paths: Sequence[Path], settings: Sequence[str] = (), asked: Sequence[str] = ()
) -> list[AnyScenario]:
    """Read scenario files whose runs one command takes on together.

    Args:
        paths: The YAML files: each a name of its own, all of one kind and on one engine.
        settings: ``KEY=VALUE`` texts of the command line, for each of them.
        asked: The variants wanted, each of them in one of the files at least; all by default.

    Raises:
        ScenarioError: With every fault found in any of them.
    """
    loaded: list[tuple[Path, list[AnyScenario]]] = []
    faults: list[Fault] = []
    for path in paths:
        try:
            loaded.append((path, load_scenarios(path, settings, asked)))
        except ScenarioError as error:
            faults += error.faults
    if not faults:
        found = [scenario.variant for _, scenarios in loaded for scenario in scenarios]
        lacking = [name for name in asked if not any(_is_of(variant, [name]) for variant in found)]
        text = "there is no such variant: validate shows which there are"
        faults += [Fault("--variant", name, text) for name in lacking]
    names: set[str] = set()
    for path, (own, *_) in loaded:
        first_path, (first, *_) = loaded[0]
        if own.engine != first.engine:
            text = f"differs from {first_path}'s: run them one by one, or --set the same"
            faults.append(Fault(str(path), "engine", text))
        if type(own) is not type(first):
            text = f"differs from {first_path}'s: federated and centralized runs go one by one"
            faults.append(Fault(str(path), "kind", text))
        if own.name in names:
            text = f"{own.name!r} is another file's name too: their folder would be the same"
            faults.append(Fault(str(path), "name", text))
        names.add(own.name)
    if faults:
        raise ScenarioError(*faults)
    return [scenario for _, scenarios in loaded for scenario in scenarios]


def by_variant(scenarios: Sequence[S]) -> dict[str, list[S]]:
    """Return the runs of a scenario file by variant, in order."""
    groups: dict[str, list[S]] = {}
    for scenario in scenarios:
        groups.setdefault(scenario.variant, []).append(scenario)
    return groups


def load_scenarios(
    path: Path, settings: Sequence[str] = (), asked: Sequence[str] = ()
) -> list[AnyScenario]:
    """Read a scenario file and expand its variants and sweep.

    A mapping laid over another (by ``extends``, a variant, a swept value or a setting) is merged
    with it, unless it names its ``kind``: then it replaces the other, whose parameters belong to
    another method. A file's own ``variants`` and ``sweep`` replace those of the file that it
    extends, and so do settings of them. Of several files that it extends, each is laid over those
    before it.

    Args:
        path: The YAML file.
        settings: ``KEY=VALUE`` texts of the command line, values in YAML. They change the base,
            every variant and swept value that has the key, and replace a sweep of that key.
        asked: The variants wanted, with all that a sweep makes of them; all by default. Other
            variants are not validated.

    Raises:
        ScenarioError: With every fault found.
    """
    draft = _Draft()
    _read(draft, path, ())
    parsed = _parse_settings(settings)
    for key, value in parsed:
        if key[0] in EXPANSION_KEYS:
            draft.replace(key, value, "--set")
    variants, sweep = _taken(draft, "variants") or {"default": {}}, _taken(draft, "sweep")
    given = [(key, value) for key, value in parsed if key[0] not in EXPANSION_KEYS]
    plain = _set_in_base(draft, variants, sweep, given)

    scenarios: list[AnyScenario] = []
    faults: list[Fault] = []
    unused = [key for key, _ in plain]
    points = _sweep_points(draft, sweep)
    for (name, overrides), point in itertools.product(variants.items(), points):
        try:
            run = _one_run(draft, name, overrides, plain, point)
            if not _is_of(run.data.get("variant", "default"), asked):
                continue
            unused = [key for key in unused if run.origins.get(key) != "--set"]
            scenarios.append(_build(run))
        except ScenarioError as error:
            faults += error.faults
    if not scenarios and not faults:
        text = f"needs one of {', '.join(variants)}, got {', '.join(asked)}"
        raise ScenarioError(Fault(str(path), "--variant", text))
    if not faults:  # else a key may be missing because of them
        text = "is in no run: variants, a sweep or a later --set put something else in its place"
        faults += [Fault("--set", ".".join(key), text) for key in unused]
    faults += _repeated_runs(scenarios, draft.origin(("sweep",)))
    faults += _other_engines(scenarios, draft)
    if len({type(scenario) for scenario in scenarios}) > 1:
        text = "federated and centralized runs need a file each"
        faults.append(Fault(draft.origin(("variants",)), "kind", text))
    if faults:
        raise ScenarioError(*faults)
    return scenarios


def _set_in_base(
    draft: _Draft, variants: dict[str, Any], sweep: dict[str, Any], settings: list[tuple[Key, Any]]
) -> list[tuple[Key, Any]]:
    """Lay settings of the command line over the base, and over sweeps of the same keys, in place.

    Returns:
        The settings; in place of a mapping that is merged, a setting for each key in it.
    """
    plain = [inner for key, value in settings for inner in _inside(key, value)]
    overlaid = [_overlaid(draft, name, overrides) for name, overrides in variants.items()]
    swept_here = [key for key in sweep if draft.origin(("sweep", key)) == "--set"]
    for key, value in (*settings, *plain):
        if (dotted := ".".join(key)) in swept_here:
            text = f"is set, and swept by sweep.{dotted}, at once: leave one out"
            raise ScenarioError(Fault("--set", dotted, text))
        if dotted in sweep:
            sweep[dotted], draft.origins["sweep", dotted] = [value], "--set"
    for key, value in plain:
        # A parameter of a method that only variants name is not the base's.
        if draft.has(key) or not any(variant.has(key) for variant in overlaid):
            draft.overlay(key, value, "--set")
    return plain


def _is_of(variant: str, asked: Sequence[str]) -> bool:
    """Whether a run, by its variant with swept values, is of one that is asked for."""
    parts = parts_of(variant)
    return not asked or any(parts[: len(own)] == own for own in map(parts_of, asked))


def _inside(key: Key, value: Any) -> Iterator[tuple[Key, Any]]:
    """Yield a setting; in place of a mapping that is merged, a setting for each key in it."""
    if isinstance(value, dict) and value and "kind" not in value:
        for name, inner in value.items():
            yield from _inside((*key, name), inner)
    else:
        yield key, value


def _one_run(
    base: _Draft,
    variant: str,
    overrides: Any,
    settings: list[tuple[Key, Any]],
    sweep_point: dict[str, tuple[str | None, Any]],
) -> _Draft:
    """Return the base with a variant, settings of the command line and swept values laid over."""
    draft = _overlaid(base, variant, overrides)

    def set_inside(changed: _Draft, outer: Key) -> None:
        for key, value in settings:
            if key[: len(outer)] == outer and changed.has(key):
                changed.overlay(key, value, "--set")

    set_inside(draft, ())
    suffix = ""
    for dotted, (name, value) in sweep_point.items():
        swept, alone = tuple(dotted.split(".")), _Draft()  # alone: for the run's name
        for changed in (draft, alone):
            changed.overlay(swept, value, base.origin(("sweep", dotted)))
            set_inside(changed, swept)
        if dotted != "seed":
            label = _label(alone.at(swept)) if name is None else name
            suffix += f",{swept[-1]}={label}"
    if variant != "default" or suffix:
        where = base.origin(("variants", variant))
        draft.replace(("variant",), (variant + suffix).removeprefix("default,"), where)
    return draft


def _build(draft: _Draft) -> AnyScenario:
    """Return the typed scenario of one run."""
    _locate_own_code(draft, draft.data, ())
    _locate_initial_model(draft)
    model = _class_of(draft)

    def fault(key: Sequence[str | int], text: str) -> Fault:
        return Fault(draft.origin(key), ".".join(map(str, key)), text)

    try:
        scenario = model.model_validate(draft.data)
    except ValidationError as error:
        found = describe(error.errors(), model)
        raise ScenarioError(*(fault(key, text) for key, text in found)) from None
    if faults := [fault(key.split("."), text) for key, text in scenario.contradictions()]:
        raise ScenarioError(*faults)
    return scenario


def _locate_own_code(draft: _Draft, node: Any, key: tuple[str | int, ...]) -> None:
    """Make a user's files relative to the YAML file that names them, or on the command line to the
    current folder, in place."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in list(items):
        if isinstance(value, dict | list):
            _locate_own_code(draft, value, (*key, name))
        elif is_own(value) and name == ("path" if _is_flower(node) else "kind"):
            folder = _folder_of(draft, (*key, name))
            if value.rpartition(":")[0].endswith(".py"):
                node[name] = str(folder / value)
            else:
                look_beside(folder, value)


def _locate_initial_model(draft: _Draft) -> None:
    """Make the path of a trained model relative to where it was written, in place."""
    given = draft.data.get("init")
    if isinstance(given, str):
        draft.data["init"] = str(_folder_of(draft, ("init",)) / given)
    elif isinstance(given, dict) and isinstance(given.get("path"), str):
        given["path"] = str(_folder_of(draft, ("init", "path")) / given["path"])


def _folder_of(draft: _Draft, key: Sequence[str | int]) -> Path:
    """Return the folder of the file that a key was written in; the current one for ``--set``."""
    origin = draft.origin(key)
    file = origin.rpartition(":")[0] or draft.origin(())  # without the line
    return Path() if origin == "--set" else Path(file).parent


def _class_of(draft: _Draft) -> type[AnyScenario]:
    kind = draft.data.get("kind")
    if kind == "centralized":
        return CentralizedScenario
    if kind is not None:
        text = f"unknown kind {kind!r}: centralized, or leave it out for a federated scenario"
        raise ScenarioError(Fault(draft.origin(("kind",)), "kind", text))
    return Scenario


def _is_flower(node: Any) -> bool:
    return isinstance(node, dict) and node.get("kind") == "flower"


def _overlaid(base: _Draft, variant: str, overrides: Any) -> _Draft:
    """Return the base with a variant's keys laid over it."""
    where = base.origin(("variants", variant))
    if overrides is not None and not isinstance(overrides, dict):
        raise ScenarioError(
            Fault(where, f"variants.{variant}", "needs a mapping of keys to values")
        )
    draft = base.copy()
    for dotted, value in (overrides or {}).items():
        key, where = tuple(dotted.split(".")), base.origin(("variants", variant, dotted))
        if key[0] in EXPANSION_KEYS:
            text = "is a whole file's: give it at the top"
            raise ScenarioError(Fault(where, f"variants.{variant}.{key[0]}", text))
        draft.overlay(key, value, where)
    return draft


def _read(draft: _Draft, path: Path, seen: tuple[str, ...]) -> None:
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


def _extend(draft: _Draft, path: Path, base: Any, where: str, seen: tuple[str, ...]) -> None:
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
    line = _line(where, getattr(fault, "problem_mark", None))
    parts = (getattr(fault, "context", None), getattr(fault, "problem", None))
    problem = " ".join(part for part in parts if part) or str(fault)
    if "'\\t'" in problem:
        return Fault(line, "", "YAML cannot be indented with tabs: use spaces")
    if "found '<block mapping start>'" in problem:
        problem = "indented otherwise than the lines around it"
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


def _parse_settings(settings: Sequence[str]) -> list[tuple[Key, Any]]:
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


def _taken(draft: _Draft, key: str) -> dict[str, Any]:
    """Take the mapping of variants, or of swept values, out of a draft."""
    value = draft.data.pop(key, None)
    if value is not None and not isinstance(value, dict):
        text = f"needs a mapping (key: value), got {short(value)}"
        raise ScenarioError(Fault(draft.origin((key,)), key, text))
    return dict(value or {})


def _sweep_points(draft: _Draft, sweep: dict[str, Any]) -> list[dict[str, tuple[str | None, Any]]]:
    """Return every combination of swept keys' values, each value with its name if it has one."""
    for key, values in sweep.items():
        where, dotted = draft.origin(("sweep", key)), f"sweep.{key}"
        if not isinstance(values, list | dict) or not values:
            text = f"needs a list of values, or a mapping of names to values, got {short(values)}"
            raise ScenarioError(Fault(where, dotted, text))
        model = _class_of(draft)
        outer, _, inner = key.partition(".")
        if outer in EXPANSION_KEYS:
            raise ScenarioError(Fault(where, dotted, "is a whole file's: it cannot be swept"))
        if outer not in model.model_fields:
            raise ScenarioError(Fault(where, dotted, unknown_key((outer,), model, model)))
        if not inner and (
            nested := _nested(values, models_in(model.model_fields[outer].annotation))
        ):
            text = f"a swept key is written with dots: {key}.{nested}"
            raise ScenarioError(Fault(where, dotted, text))
        unfit = [name for name in values if UNFIT.search(name)] if isinstance(values, dict) else []
        if unfit and key != "seed":  # which is in no variant's name
            text = f"needs names of letters, digits and . _ = , -, got {unfit[0]!r}"
            raise ScenarioError(Fault(where, dotted, text))
    named = [
        list(values.items()) if isinstance(values, dict) else [(None, v) for v in values]
        for values in sweep.values()
    ]
    return [dict(zip(sweep, point, strict=True)) for point in itertools.product(*named)]


def _nested(values: list[Any] | dict[str, Any], models: Sequence[type[BaseModel]]) -> str | None:
    """Return a key of one of the models for which swept values are given inside of another's."""
    known = {name for model in models for name in model.model_fields}
    named = values.items() if isinstance(values, dict) else ()
    return next((k for k, v in named if k in known and isinstance(v, list)), None)


def _repeated_runs(scenarios: Sequence[AnyScenario], where: str) -> Iterator[Fault]:
    """Yield a fault for each run that would write into the folder of another."""
    seen: set[tuple[str, int]] = set()
    for scenario in scenarios:
        run = (scenario.variant, scenario.seed)
        if run in seen:
            text = f"gives variant {scenario.variant} with seed {scenario.seed} twice"
            yield Fault(where, "sweep", f"{text}: their values must tell them apart")
        seen.add(run)


def label_of_settings(settings: Sequence[str]) -> str:
    """Return command line settings as a part of a variant's name."""
    parsed = _parse_settings(settings)
    return ",".join(f"{key[-1]}={_label(value)}" for key, value in parsed)


def _label(value: Any) -> str:
    """Return a value as a part of a variant's name, and so of its folder's."""
    if isinstance(value, dict):
        return "-".join(_label(inner) for inner in value.values())
    if isinstance(value, list):
        return "-".join(_label(inner) for inner in value) or "none"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(value))


def _other_engines(scenarios: Sequence[AnyScenario], draft: _Draft) -> Iterator[Fault]:
    """Yield a fault for each key of the engine, which all runs of a command share, that differs."""
    engines = [dict(scenario.engine) for scenario in scenarios]
    for key in engines[0] if engines else ():
        values = list(dict.fromkeys(engine[key] for engine in engines))
        if len(values) > 1:
            swept = draft.origin(("sweep", f"engine.{key}"))
            where = swept if swept != draft.origin(()) else draft.origin(("variants",))
            text = (
                f"all runs of a command share one engine, got {', '.join(map(str, values))}: "
                "name it once, outside variants and sweep"
            )
            yield Fault(where, f"engine.{key}", text)
