"""From YAML files and the command line to a list of typed scenarios."""

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fl_testbed.scenario.centralized import CentralizedScenario
from fl_testbed.scenario.draft import Draft, Key, parse_settings
from fl_testbed.scenario.faults import (
    EXPANSION_KEYS,
    NEEDED,
    Fault,
    ScenarioError,
    describe,
    short,
    unknown_key,
    unknown_kind,
)
from fl_testbed.scenario.naming import named
from fl_testbed.scenario.places import parts_of
from fl_testbed.scenario.scenario import NAME, Scenario
from fl_testbed.scenario.spec import Spec, Written, is_own, models_in
from fl_testbed.scenario.users_code import look_beside

N_NAMED = 3  # of the variants that lack a swept key
UNFIT = re.compile(r"[^A-Za-z0-9._=,-]")  # for a part of a variant's name
AnyScenario = Scenario | CentralizedScenario
"""The kinds of scenario; ``kind`` picks the class, and without it a scenario is federated."""
OF_POOLED_DATA = CentralizedScenario.model_fields.keys() - Scenario.model_fields.keys() - {"kind"}
S = TypeVar("S", bound=AnyScenario)
Swept = tuple[str | None, Any, str]
"""A swept key's value: its name, if it has one, the value itself, and where it was written."""


def load_files(
    paths: Sequence[Path], settings: Sequence[str] = (), asked: Sequence[str] = ()
) -> list[AnyScenario]:
    """Read scenario files whose runs one command takes on together.

    Args:
        paths: The YAML files, all of one kind and on one engine, and no two with the same run.
            Files with the same name form one sweep, such as those in a sweep's run folders.
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
        text = "there is no such variant: fl-testbed validate lists them"
        faults += [Fault("--variant", name, text) for name in lacking]
    runs: set[tuple[str, str, int]] = set()
    for path, scenarios in loaded:
        own = scenarios[0]
        first_path, (first, *_) = loaded[0]
        if own.engine != first.engine:
            text = f"differs from that of {first_path}: run them apart, or set the same for both"
            faults.append(Fault(str(path), "engine", text))
        if type(own) is not type(first):
            text = f"differs from that of {first_path}: run federated and centralized ones apart"
            faults.append(Fault(str(path), "kind", text))
        here = {(item.name, item.variant, item.seed) for item in scenarios}
        if runs & here:
            name, variant, seed = min(runs & here)
            text = f"{name!r} has {variant} with seed {seed} in another file too: rename one"
            faults.append(Fault(str(path), "name", text))
        runs |= here
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
    draft = Draft.read(path)
    parsed = parse_settings(settings)
    for key, value in parsed:
        if key[0] in EXPANSION_KEYS:
            draft.replace(key, value, "--set")
    variants, sweep = _taken(draft, "variants"), _taken(draft, "sweep")
    if unfit := [name for name in variants if not re.fullmatch(NAME, name)]:  # told once
        text = f"needs a name of {NEEDED['string_pattern_mismatch']}"
        raise ScenarioError(*(Fault(variants.origins[n], f"variants.{n}", text) for n in unfit))
    if not variants:
        variants.replace(("default",), None, draft.origin(("variants",)))
    given = [(key, value) for key, value in parsed if key[0] not in EXPANSION_KEYS]
    wanted = [name for name in variants if _has_runs(name, asked)]
    plain = _set_in_base(draft, [_overlaid(draft, variants, name) for name in wanted], sweep, given)

    scenarios: list[AnyScenario] = []
    found: dict[str, list[Fault]] = {}
    unused = [key for key, _ in plain]
    points = _sweep_points(draft, sweep)
    for name, point in itertools.product(variants, points):
        label = name
        try:
            run = _one_run(draft, variants, name, plain, point)
            label = run.get("variant", "default")
            if not _is_of(label, asked):
                continue
            unused = [key for key in unused if not run.has(key) or run.origin(key) != "--set"]
            scenarios.append(_build(run))
        except ScenarioError as error:
            found.setdefault(label, []).extend(error.faults)
    faults = list(_faults_of_runs(found, sweep, some_are_right=bool(scenarios)))
    if not scenarios and not faults:
        text = f"needs one of {', '.join(variants)}, got {', '.join(asked)}"
        raise ScenarioError(Fault(str(path), "--variant", text))
    if not faults:  # otherwise they may be why a key is missing
        text = "is in no run: variants, a sweep or a later --set put something else in its place"
        faults += [Fault("--set", ".".join(key), text) for key in unused]
    faults += _repeated_runs(scenarios, draft.origin(("sweep",)))
    faults += _other_engines(scenarios, sweep.origins, draft.origin(("variants",)))
    if len({type(scenario) for scenario in scenarios}) > 1:
        text = "needs to be the same in all variants: federated runs need a file of their own"
        faults.append(Fault(draft.origin(("variants",)), "kind", text))
    if faults:
        raise ScenarioError(*faults)
    return scenarios


def _faults_of_runs(
    found: Mapping[str, Sequence[Fault]], swept: Collection[str], *, some_are_right: bool
) -> Iterator[Fault]:
    """Yield the faults of runs, given by variant. A swept key that some runs lack is one fault,
    which names these runs if others have it."""
    lacking: dict[str, dict[str, Fault]] = {}
    for variant, faults in found.items():
        for fault in faults:
            key = next((key for key in swept if f"{key}.".startswith(f"{fault.key}.")), None)
            if key and fault.text.startswith("unknown key"):
                lacking.setdefault(key, {})[variant] = fault
            else:
                yield fault
    for key, own in lacking.items():
        first = next(iter(own.values()))
        if some_are_right or len(own) < len(found):
            value = f"{key.rpartition('.')[2]}="
            parts = ([p for p in parts_of(variant) if not p.startswith(value)] for variant in own)
            names = dict.fromkeys(",".join(p) or "default" for p in parts)
            text = f"is swept in all variants, but {named([*names], N_NAMED)} cannot have it: "
            text += "sweep it in a file of the other variants, and compare both folders"
            first = replace(first, text=text)
        yield first


def _set_in_base(
    draft: Draft, overlaid: list[Draft], sweep: Draft, settings: list[tuple[Key, Any]]
) -> list[tuple[Key, Any]]:
    """Lay settings of the command line over the base, and over sweeps of the same keys, in place.

    Args:
        draft: The base.
        overlaid: The base with each variant that is to run.
        sweep: The swept keys.
        settings: Keys and values.

    Returns:
        The settings, with a mapping that is merged split into one setting for each of its keys.
    """
    plain = [inner for key, value in settings for inner in _inside(key, value)]
    swept_here = [key for key in sweep if sweep.origins[key] == "--set"]
    for key, value in (*settings, *plain):
        if (dotted := ".".join(key)) in swept_here:
            text = f"is both set and swept (by sweep.{dotted}): leave one out"
            raise ScenarioError(Fault("--set", dotted, text))
        if dotted in sweep:
            sweep.replace((dotted,), [value], "--set")
    for key, value in plain:
        # A key that only variants have, such as their method's parameter, is not set in the base.
        if draft.has(key) or not any(variant.has(key) for variant in overlaid):
            draft.overlay(key, value, "--set")
    return plain


def _is_of(variant: str, asked: Sequence[str]) -> bool:
    """Whether a run's variant, which includes swept values, belongs to one that is asked for."""
    parts = parts_of(variant)
    return not asked or any(parts[: len(own)] == own for own in map(parts_of, asked))


def _has_runs(name: str, asked: Sequence[str]) -> bool:
    """Whether any run of a variant of the file may be asked for."""
    return name == "default" or _is_of(name, asked) or any(_is_of(one, [name]) for one in asked)


def _inside(key: Key, value: Any) -> Iterator[tuple[Key, Any]]:
    """Yield a setting, with a mapping that is merged split into one setting for each key."""
    if isinstance(value, dict) and value and "kind" not in value:
        for name, inner in value.items():
            yield from _inside((*key, name), inner)
    else:
        yield key, value


def _one_run(
    base: Draft,
    variants: Draft,
    variant: str,
    settings: list[tuple[Key, Any]],
    point: dict[str, Swept],
) -> Draft:
    """Return the base with a variant, settings of the command line and swept values laid over."""
    draft = _overlaid(base, variants, variant)

    def set_inside(changed: Draft, outer: Key) -> None:
        for key, value in settings:
            if key[: len(outer)] == outer and changed.has(key):
                changed.overlay(key, value, "--set")

    set_inside(draft, ())
    suffix = ""
    for dotted, (name, value, where) in point.items():
        swept, alone = tuple(dotted.split(".")), Draft()  # alone: for the run's name
        for changed in (draft, alone):
            changed.overlay(swept, value, where)
            set_inside(changed, swept)
        if dotted != "seed":
            suffix += f",{swept[-1]}={_label(alone) if name is None else name}"
    if variant != "default" or suffix:
        own = (variant + suffix).removeprefix("default,")
        draft.replace(("variant",), own, variants.origins[variant])
    return draft


def _build(draft: Draft) -> AnyScenario:
    """Return the typed scenario of one run."""
    model = _class_of(draft)

    def fault(key: Sequence[str | int], text: str) -> Fault:
        return Fault(draft.origin(key), ".".join(map(str, key)), text)

    folders: dict[str, Path] = {}
    data = _located(draft, folders)
    for folder in folders.values():
        look_beside(folder)
    lines = {key: draft.origin((key,)) for key in model.model_fields}
    try:
        scenario = model.model_validate(data, context=Written(lines, folders))
    except ValidationError as error:
        found = describe(error.errors(), model)
        raise ScenarioError(*(fault(key, text) for key, text in found)) from None
    if faults := [fault(key.split("."), text) for key, text in scenario.contradictions()]:
        raise ScenarioError(*faults)
    return scenario


def _located(draft: Draft, folders: dict[str, Path]) -> dict[str, Any]:
    """Return plain data with the paths of users' files and of a trained model resolved; note the
    folder of each file that names a module."""
    data = _plain(draft, folders)
    match data.get("init"):
        case str(path):
            data["init"] = str(_folder_of(draft, "init") / path)
        case {"path": str(path)}:
            data["init"]["path"] = str(_folder_of(draft["init"], "path") / path)
    return data


def _plain(value: Any, folders: dict[str, Path], *, is_users: bool = False) -> Any:
    """Return plain data with the paths of a user's functions resolved, but not in its arguments."""
    if isinstance(value, list):
        return [_plain(item, folders, is_users=is_users) for item in value]
    if not isinstance(value, Draft):
        return value
    plain = {k: _plain(v, folders, is_users=is_users or k == "args") for k, v in value.items()}
    place = "path" if value.get("kind") == "flower" else "kind"
    if not is_users and is_own(own := value.get(place)):
        folder = _folder_of(value, place)
        if own.rpartition(":")[0].endswith(".py"):
            plain[place] = str(folder / own)
        else:
            folders[own] = folder.absolute()
    return plain


def _folder_of(around: Draft, key: str) -> Path:
    """Return the folder of the file that a key was written in; the current one for ``--set``."""
    return Path(around.origins[key].rpartition(":")[0]).parent  # without the line


def _class_of(draft: Draft) -> type[AnyScenario]:
    kind = draft.get("kind")
    if kind == "centralized":
        return CentralizedScenario
    if kind is not None:
        unknown = unknown_kind(str(kind), (), Scenario)
        text = f"{unknown}; write kind: centralized for pooled data, and no kind for a federation"
        raise ScenarioError(Fault(draft.origin(("kind",)), "kind", text))
    pooled = draft.keys() & OF_POOLED_DATA
    if pooled and "strategy" not in draft:
        text = f"is missing: {min(pooled)} is for pooled data, so write kind: centralized"
        raise ScenarioError(Fault(draft.origin(()), "kind", text))
    return Scenario


def _overlaid(base: Draft, variants: Draft, name: str) -> Draft:
    """Return the base with a variant's keys laid over it."""
    overrides = Draft() if variants[name] is None else variants[name]
    if not isinstance(overrides, Draft):
        text = f"needs a mapping (key: value), got {short(overrides)}"
        raise ScenarioError(Fault(variants.origins[name], f"variants.{name}", text))
    draft = deepcopy(base)
    for dotted, value in overrides.items():
        key, where = tuple(dotted.split(".")), overrides.origins[dotted]
        if key[0] in EXPANSION_KEYS:
            text = "belongs to the whole file: move it to the top level"
            raise ScenarioError(Fault(where, f"variants.{name}.{key[0]}", text))
        draft.overlay(key, value, where)
    return draft


def _taken(draft: Draft, key: str) -> Draft:
    """Take the mapping of variants, or of swept values, out of a draft."""
    value = draft.pop(key, None)
    if value is not None and not isinstance(value, Draft):
        text = f"needs a mapping (key: value), got {short(value)}"
        raise ScenarioError(Fault(draft.origin((key,)), key, text))
    return Draft() if value is None else value


def _sweep_points(draft: Draft, sweep: Draft) -> list[dict[str, Swept]]:
    """Return every combination of swept keys' values."""
    for key, values in sweep.items():
        where, dotted = sweep.origins[key], f"sweep.{key}"
        if not isinstance(values, list | dict) or not values:
            text = f"needs a list of values, or a mapping of names to values, got {short(values)}"
            raise ScenarioError(Fault(where, dotted, text))
        model = _class_of(draft)
        outer, _, inner = key.partition(".")
        if outer in EXPANSION_KEYS:
            raise ScenarioError(Fault(where, dotted, "belongs to the whole file, not to a sweep"))
        if outer not in model.model_fields:
            raise ScenarioError(Fault(where, dotted, unknown_key((outer,), model, model)))
        if not inner and (
            nested := _nested(values, models_in(model.model_fields[outer].annotation))
        ):
            text = f"needs the swept key written with dots: {key}.{nested}"
            raise ScenarioError(Fault(where, dotted, text))
        unfit = [name for name in values if UNFIT.search(name)] if isinstance(values, dict) else []
        if unfit and key != "seed":  # which is in no variant's name
            text = f"needs names of letters, digits and . _ = , -, got {unfit[0]!r}"
            raise ScenarioError(Fault(where, dotted, text))
    choices: list[list[Swept]] = [
        [(name, value, values.origins[name]) for name, value in values.items()]
        if isinstance(values, Draft)
        else [(None, value, sweep.origins[key]) for value in values]
        for key, values in sweep.items()
    ]
    return [dict(zip(sweep, point, strict=True)) for point in itertools.product(*choices)]


def _nested(values: list[Any] | dict[str, Any], models: Sequence[type[Spec]]) -> str | None:
    """Return an inner key whose swept values are nested in the outer key, or None."""
    known = {name for model in models for name in model.model_fields}
    items = values.items() if isinstance(values, dict) else ()
    return next((k for k, v in items if k in known and isinstance(v, list)), None)


def _repeated_runs(scenarios: Sequence[AnyScenario], where: str) -> Iterator[Fault]:
    """Yield a fault for each run that would write into the folder of another."""
    runs = Counter((scenario.variant, scenario.seed) for scenario in scenarios)
    for variant, seed in (run for run, n in runs.items() if n > 1):
        text = f"makes two runs of {variant} with seed {seed}: let their values or names differ"
        yield Fault(where, "sweep", text)


def label_of_settings(settings: Sequence[str]) -> str:
    """Return command line settings as a part of a variant's name."""
    parsed = parse_settings(settings)
    return ",".join(f"{key[-1]}={_label(value)}" for key, value in parsed)


def _label(value: Any) -> str:
    """Return a value as a part of a variant's name, and so of its folder's."""
    if isinstance(value, dict):
        return "-".join(_label(inner) for inner in value.values())
    if isinstance(value, list):
        return "-".join(_label(inner) for inner in value) or "none"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(value))


def _other_engines(
    scenarios: Sequence[AnyScenario], swept: Mapping[str, str], otherwise: str
) -> Iterator[Fault]:
    """Yield a fault for each key of the engine, which all runs of a command share, that differs."""
    engines = [dict(scenario.engine) for scenario in scenarios]
    for key in engines[0] if engines else ():
        values = list(dict.fromkeys(engine[key] for engine in engines))
        if len(values) > 1:
            where = swept.get(f"engine.{key}", swept.get("engine", otherwise))
            text = (
                f"needs to be the same in all runs of a command, got "
                f"{', '.join(map(str, values))}: set it once, outside variants and sweep"
            )
            yield Fault(where, f"engine.{key}", text)
