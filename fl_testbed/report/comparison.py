"""Variants side by side: means with intervals, differences to a baseline, and which is best."""

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fl_testbed.report.columns import (
    ACCURACY,
    ATTACK_SUCCESS,
    GROUP,
    IS_MINORITY,
    LOSS,
    PAIRS,
    SECTIONS,
    WORST_GROUP,
    Column,
    shown_group,
    with_groups,
)
from fl_testbed.report.results import RunResult, Status, noted_data, scenario_in
from fl_testbed.report.statistics import NO_VALUE, Estimate, estimate, pareto_optimal
from fl_testbed.scenario import Fault, ScenarioError
from fl_testbed.scenario.leaves import leaves
from fl_testbed.scenario.naming import named
from fl_testbed.scenario.parts import N_FINAL
from fl_testbed.scenario.places import parts_of
from fl_testbed.scenario.strategy import StrategySpec

METHODS = {"strategy", *StrategySpec.model_fields, "local_method", "stages"}
"""Keys of a scenario that belong to a method. Others, such as the attack, are conditions it
meets."""
FEW_PAIRS = 30  # with fewer, one pair moves separability by over 3 points
N_KEYS = 3  # differing keys to name in a note, at most
UNNAMED = "default"
"""The variant's name where a scenario file has no variants."""


@dataclass
class Row:
    """One variant."""

    label: str
    runs: list[RunResult]
    """One per seed, whether done or not."""
    method: str
    """The label without the ``point``."""
    point: str
    """The conditions that the method meets, such as ``attack=mimic``, or ``name=`` and a sweep's
    name. Methods are compared at the same point. Empty if no two methods share one."""
    counts: dict[Status, int]
    """How many runs have each status."""
    reasons: list[str]
    """Why runs failed, and which seeds."""
    groups: frozenset[tuple[str, float]]
    """The groups it is tested on, and which are minorities: rows where these differ are not ranked
    against each other."""
    n_rounds: int
    """The number of rounds of all its finished runs together."""
    n_skipped: int
    """How many of these rounds left the model unchanged."""
    n_diverged: int
    """In how many of its finished runs the model's loss is not finite: never marked as best."""
    is_oracle: bool
    """Told the truth about clients: never marked as best."""
    has_few_pairs: bool
    """Whether in some run separability is a share of fewer than ``FEW_PAIRS`` pairs."""
    estimates: dict[str, Estimate]
    """By the columns' keys."""

    # Depends on the other rows:
    is_unattacked: bool = False
    """Nobody attacks it, although other rows are attacked: never marked as best."""
    is_pareto: bool = False
    differences: dict[str, Estimate] = field(default_factory=dict)
    """By column key, to the baseline, over the seeds that both have; empty without a baseline."""

    @property
    def swept(self) -> dict[str, str]:
        """Its swept values by key, those of rules and lifts included."""
        return self.runs[0].swept

    @property
    def competes(self) -> bool:
        """Whether it may be marked as best."""
        out = self.is_oracle or self.is_unattacked or self.stands_still or self.n_diverged
        return not out

    @property
    def stands_still(self) -> bool:
        """Whether no round of its finished runs moved the model: never marked as best."""
        return 0 < self.n_rounds == self.n_skipped


@dataclass
class Comparison:
    """The content of a table of variants, whatever format it is written in."""

    title: str
    sections: dict[str, list[Column]]
    """Columns that at least one run has a value for, by section."""
    rows: list[Row]
    best: dict[str, list[str]]
    """Labels of the best rows at each point, by column key; none where all competitors are
    equal."""
    baseline: str | None
    untested: list[str]
    """A sentence for each group of which some runs have no test example: their worst group is
    taken over other groups."""
    on_other_data: list[str]
    """Runs that asked for the same data as most others but got different data: their copy of the
    files differs."""
    of_unlike_seeds: list[str]
    """Variants whose finished runs differ in more than the seed, and in which keys."""
    nobody_attacks: bool
    """Whether no finished run has attackers: then attack success is meaningless."""
    evaluations: str
    """What final figures are averaged over."""

    @property
    def columns(self) -> list[Column]:
        """The columns of all sections."""
        return [column for columns in self.sections.values() for column in columns]

    @property
    def has_points(self) -> bool:
        """Whether there are several points, at each of which variants are compared separately."""
        return len({row.point for row in self.rows}) > 1

    @property
    def has_other_groups(self) -> bool:
        """Whether at some point variants are tested on different groups or minorities."""
        tested = {(row.point, row.groups) for row in self.rows if row.groups}
        return len(tested) > len({point for point, _ in tested})

    @property
    def failed(self) -> list[str]:
        """Why runs failed, each as ``label: reason``."""
        return [f"{row.label}: {reason}" for row in self.rows for reason in row.reasons]


class UnknownVariantError(ValueError):
    """There is no variant of that name; the text says which there are."""


def compare(
    runs: Sequence[RunResult],
    baseline: str | None = None,
    sections: Mapping[str, tuple[Column, ...]] = SECTIONS,
) -> Comparison:
    """Compare variants over their seeds.

    Rows that meet the same swept values, such as the same attack, stand together and are compared
    only with each other: meeting a strong attack must not make a defence look bad. The same holds
    for several sweeps of the same methods, for instance on different data.

    Args:
        runs: Of one or several sweeps; with several, rows are called ``name/variant``.
        baseline: The label of the row that differences are taken to; or a method, with its swept
            values if any, that is there at several points: then each row is compared with the
            baseline at its own point; or a variant that was swept: then with its row of the same
            swept values.
        sections: Columns by section; by default all known ones.

    Raises:
        ScenarioError: If two runs have the same variant and seed: counted twice they would make
            intervals too narrow.
        UnknownVariantError: If there is no such baseline.
    """
    names = list(dict.fromkeys(run.name for run in runs))
    labels = [run.variant if len(names) == 1 else f"{run.name}/{run.variant}" for run in runs]
    by_label: dict[str, list[RunResult]] = {}
    for label, run in zip(labels, runs, strict=True):
        by_label.setdefault(label, []).append(run)
    if faults := list(_repeated(by_label)):
        raise ScenarioError(*faults)
    places = _places(by_label)
    references = _references(baseline, places)
    figures = [run.figures for run in runs]
    shown = {
        title: told
        for title, columns in with_groups(sections, figures).items()
        if (told := [c for c in columns if any(map(c.is_told_by, figures))])
    }
    columns = [column for columns in shown.values() for column in columns]
    keys = [column.key for column in columns]
    points = list(dict.fromkeys(place.point for place in places.values()))
    rows = [
        _row(label, places[label], by_label[label], keys)
        for label in sorted(by_label, key=lambda label: points.index(places[label].point))
    ]
    some_attacked = any(own.get("n_poisoned", 0) > 0 for own in figures)
    nobody_attacks = all(own.get("n_poisoned") == 0 for own in figures if own)
    for row in rows:
        unattacked = any(run.figures.get("n_poisoned") == 0 for run in row.runs)
        row.is_unattacked = some_attacked and unattacked
        if row.label in references:
            row.differences = _differences(row.runs, by_label[references[row.label]], keys)
    rivals = [own for point in points for own in _rivals([r for r in rows if r.point == point])]
    if not nobody_attacks:
        for own in rivals:
            _mark_pareto(own)
    best = {
        column.key: [label for own in rivals for label in _best(own, column)] for column in columns
    }
    return Comparison(
        title=" and ".join(names),
        sections=shown,
        rows=rows,
        best=best,
        baseline=baseline,
        untested=list(_untested(figures)),
        on_other_data=_on_other_data(by_label),
        of_unlike_seeds=list(_of_unlike_seeds(by_label)),
        nobody_attacks=nobody_attacks,
        evaluations=_evaluations(figures),
    )


def _evaluations(runs: Sequence[Mapping[str, float]]) -> str:
    """Say how many evaluations final figures are averaged over; pooled data have no rounds."""
    counts = [
        int(figures.get("n_final", N_FINAL))
        for figures in runs
        if ACCURACY.key in figures and "rounds" in figures
    ]
    least, most = min(counts, default=N_FINAL), max(counts, default=N_FINAL)
    if most == 1:
        return "evaluation"
    return f"{most if least == most else f'{least} to {most}'} evaluations"


def _on_other_data(by_label: Mapping[str, Sequence[RunResult]]) -> list[str]:
    """Name the runs that asked for the same data as most others but got different data."""
    got: dict[str, dict[str, list[str]]] = {}
    for label, runs in by_label.items():
        for run in runs:
            if run.figures and (data := noted_data(run.folder)):
                asked, fingerprint = data
                names = got.setdefault(asked, {}).setdefault(fingerprint, [])
                names.append(f"{label} seed {run.seed}")
    return [
        name
        for found in got.values()
        for own in sorted(found.values(), key=len, reverse=True)[1:]
        for name in own
    ]


def _of_unlike_seeds(by_label: Mapping[str, Sequence[RunResult]]) -> Iterator[str]:
    """Yield each variant whose seeds differ in other keys, such as ``rounds``, with these keys."""
    for label, runs in by_label.items():
        paths = [run.folder / "scenario.yaml" for run in runs if run.figures]
        without_seed = {
            re.sub(rb"(?m)^seed: \d+$", b"", path.read_bytes()): path.parent
            for path in paths
            if path.exists()
        }
        if len(without_seed) > 1:
            found = [dict(leaves(scenario_in(folder))) for folder in without_seed.values()]
            keys = dict.fromkeys(key for own in found for key in own if key != "seed")
            apart = [key for key in keys if len({repr(own.get(key)) for own in found}) > 1]
            yield f"{label} in {named(apart, N_KEYS)}"


def _untested(runs: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """Yield a sentence for each group of which some runs have no test example."""
    keys = dict.fromkeys(key for figures in runs for key in figures if key.startswith(IS_MINORITY))
    for name in (key.removeprefix(IS_MINORITY) for key in keys):
        there = [figures for figures in runs if f"{IS_MINORITY}{name}" in figures]
        found = [figures.get(f"{GROUP}{name}", math.nan) for figures in there]
        n_tested = sum(not math.isnan(value) for value in found)
        if n_tested < len(there):
            yield f"{shown_group(name, runs)} is tested in {n_tested} of {len(there)} runs"


class _Place(NamedTuple):
    """A row's label in parts: ``mean,attack=mimic`` is a method at a swept point."""

    method: str
    point: str


def _swept_constants(by_label: Mapping[str, Sequence[RunResult]]) -> set[str]:
    """Return the swept keys that some variants lack and that are constants of others' methods."""
    swept = {label: set(runs[0].swept) for label, runs in by_label.items()}
    found: set[str] = set()
    for key in set().union(*swept.values()) - set.intersection(*swept.values()):
        having = [run for label, keys in swept.items() if key in keys for run in by_label[label]]
        folder = next((run.folder for run in having if run.figures), None)
        if folder is not None and (folder / "scenario.yaml").exists():
            there = [d for d, _ in leaves(scenario_in(folder)) if d.rpartition(".")[2] == key]
            if there and all(dotted.partition(".")[0] in METHODS for dotted in there):
                found.add(key)
    return found


def _place(variant: str, of_methods: Set[str]) -> _Place:
    """Split a variant's name into the method, with its own swept values, and the point.

    Swept keys come last in a variant's name, each shortened to its last dotted part.
    """
    parts = parts_of(variant)
    met = [part for part in parts if "=" in part and part.partition("=")[0] not in of_methods]
    method = ",".join(part for part in parts if part not in met)
    return _Place(method or UNNAMED, ",".join(met))


def _places(by_label: Mapping[str, Sequence[RunResult]]) -> dict[str, _Place]:
    """Return each row's method and point. If no two methods share a point, points are empty.

    If sweeps have a method in common, they differ in what it meets, such as the data: the sweep's
    name is then part of the point. Otherwise it is part of the method.
    """
    of_methods = METHODS | _swept_constants(by_label)
    own = {
        label: (runs[0].name, _place(runs[0].variant, of_methods))
        for label, runs in by_label.items()
    }
    sweeps = {name for name, _ in own.values()}
    of_method = Counter(method for _, method in {(name, at.method) for name, at in own.values()})
    del of_method[UNNAMED]
    places = {}
    for label, (name, (method, point)) in own.items():
        if len(sweeps) == 1:
            places[label] = _Place(method, point)
        elif max(of_method.values(), default=0) > 1:
            places[label] = _Place(method, f"name={name},{point}".removesuffix(","))
        else:
            places[label] = _Place(name if method == UNNAMED else f"{name}/{method}", point)
    points = [place.point for place in places.values()]
    if len(set(points)) == len(points):
        return {label: _Place(label, "") for label in places}
    return places


def _row(label: str, place: _Place, runs: list[RunResult], keys: Sequence[str]) -> Row:
    """Return a variant's row, filled in from its own runs alone."""
    failed: dict[str, list[str]] = {}
    for run in runs:
        if run.status is Status.FAILED:
            failed.setdefault(run.reason, []).append(str(run.seed))
    return Row(
        label=label,
        runs=runs,
        method=place.method,
        point=place.point,
        counts={status: sum(run.status is status for run in runs) for status in Status},
        reasons=[
            f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: {reason}"
            for reason, seeds in failed.items()
        ],
        groups=frozenset(
            (key, value)
            for run in runs
            for key, value in run.figures.items()
            if key.startswith(IS_MINORITY)
        ),
        n_rounds=int(sum(run.figures.get("rounds", 0) for run in runs)),
        n_skipped=int(sum(run.figures.get("skipped_rounds", 0) for run in runs)),
        n_diverged=sum(_has_diverged(run.figures) for run in runs),
        is_oracle=any(run.figures.get("oracle", 0) > 0 for run in runs),
        has_few_pairs=any(0 < run.figures.get(PAIRS, 0) < FEW_PAIRS for run in runs),
        estimates={key: estimate(_values(runs, key)) for key in keys},
    )


def _has_diverged(figures: Mapping[str, float]) -> bool:
    return math.isnan(figures.get(LOSS, 0.0)) and not math.isnan(figures.get(ACCURACY.key, 0.0))


def _references(baseline: str | None, places: Mapping[str, _Place]) -> dict[str, str]:
    """Return the label of the row that each row is compared with, for rows that have one.

    Raises:
        UnknownVariantError: If there is no such baseline.
    """
    if baseline is None:
        return {}
    there = {place.point: label for label, place in places.items() if place.method == baseline}
    if baseline in places:
        found = dict.fromkeys(places, baseline)
    elif there:
        found = {label: there[at.point] for label, at in places.items() if at.point in there}
    else:  # a variant, at all of its swept values, those of methods included
        alike = {label: ",".join([baseline, *parts_of(label)[1:]]) for label in places}
        found = {label: other for label, other in alike.items() if other in places}
    if not found:
        known = list(dict.fromkeys([*(place.method for place in places.values()), *places]))
        near = difflib.get_close_matches(baseline, known, n=1)
        hint = f", did you mean {near[0]!r}?" if near else f"; known variants: {named(known, 20)}"
        raise UnknownVariantError(f"there is no variant {baseline!r}{hint}")
    return {label: other for label, other in found.items() if label != other}


def _repeated(by_label: Mapping[str, Sequence[RunResult]]) -> Iterator[Fault]:
    for label, runs in by_label.items():
        first: dict[int, RunResult] = {}
        for run in runs:
            if (other := first.setdefault(run.seed, run)) is not run:
                text = f"holds {label} with seed {run.seed}, as {other.folder} does: leave one out"
                yield Fault(str(run.folder), "", text)


def _values(runs: Sequence[RunResult], key: str) -> np.ndarray:
    return np.array([run.figures.get(key, math.nan) for run in runs])


def _differences(
    runs: Sequence[RunResult], baseline: Sequence[RunResult], keys: Sequence[str]
) -> dict[str, Estimate]:
    """Return the mean differences over the seeds that both have."""
    others = {run.seed: run for run in baseline}
    own = [run for run in runs if run.seed in others]
    theirs = [others[run.seed] for run in own]
    return {key: estimate(_values(own, key) - _values(theirs, key)) for key in keys}


def _rivals(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield the rows of a point in lists of those that are tested on the same groups. Rows without
    tests, such as replays, do not split them."""
    tested = dict.fromkeys(row.groups for row in rows if row.groups)
    if len(tested) < 2:
        yield list(rows)
    else:
        yield from ([row for row in rows if row.groups == own] for own in tested)


def _mark_pareto(rows: list[Row]) -> None:
    """Mark the Pareto-optimal competitors in worst-group accuracy and attack success."""
    figures = (WORST_GROUP.key, ATTACK_SUCCESS.key)
    competitors = [
        row
        for row in rows
        if row.competes and all(row.estimates.get(key, NO_VALUE).n for key in figures)
    ]
    costs = [
        [-row.estimates[WORST_GROUP.key].mean, row.estimates[ATTACK_SUCCESS.key].mean]
        for row in competitors
    ]
    if len(costs) > 1:
        marks = pareto_optimal(np.array(costs))
        for row, mark in zip(competitors, marks, strict=True):
            row.is_pareto = bool(mark)


def _best(rows: list[Row], column: Column) -> list[str]:
    costs = {
        "highest": lambda mean: -mean,
        "lowest": lambda mean: mean,
        "nearest 0": abs,
        None: lambda mean: math.nan,
    }
    cost = costs[column.best]
    found = {row.label: cost(row.estimates[column.key].mean) for row in rows if row.competes}
    found = {label: value for label, value in found.items() if not math.isnan(value)}
    if len(set(found.values())) < 2:  # all are equal
        return []
    least = min(found.values())
    return [label for label, value in found.items() if value == least]
