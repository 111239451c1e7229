"""Every figure that a sweep's runs allow, each with a caption that says what it shows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from fl_testbed.report.columns import ATTACK_SUCCESS, SEPARABILITY, WORST_GROUP
from fl_testbed.report.comparison import Comparison
from fl_testbed.report.figures.client_accuracies import client_accuracies
from fl_testbed.report.figures.group_curves import group_curves
from fl_testbed.report.figures.heard_map import heard_map
from fl_testbed.report.figures.heat_map import heat_map
from fl_testbed.report.figures.score_distributions import score_distributions
from fl_testbed.report.figures.suppression_bars import suppression_bars
from fl_testbed.report.figures.tension import tension_plane
from fl_testbed.report.figures.weights_over_rounds import weights_over_rounds
from fl_testbed.report.histories import (
    ACCURACIES,
    after_restart,
    client_history,
    group_accuracy_by_round,
    heard_by_round,
    last_client_accuracies,
    suspicion_ranks,
    weight_ratios_by_round,
)
from fl_testbed.report.results import RunResult, Status, as_written, scenario_in
from fl_testbed.report.statistics import NO_VALUE

PER_PAGE = 12  # panels in a figure that has one per variant
MOST_VARIANTS = 24  # that get panels of their own
FILLED = 0.6  # share of a heat map's cells that must have a value


class Picture(NamedTuple):
    """One figure."""

    name: str
    """The name of its files, without the ending."""
    title: str
    caption: str
    figure: Figure


def pictures(comparison: Comparison) -> Iterator[Picture]:
    """Yield the figures of finished runs, those of the whole sweep first."""
    if (plane := tension_plane(comparison)) is not None:
        yield Picture(
            "tension",
            "The tension",
            "Up is fair, left is safe. A defence that silences the minority lies low, a lift that "
            "amplifies attackers lies to the right. Bars: 95 % intervals over seeds.",
            plane,
        )
    if (bars := suppression_bars(comparison)) is not None:
        yield Picture(
            "suppression",
            "Who was heard",
            "Each role's share of the aggregate over its fair share: below 1 silenced, above 1 "
            "amplified.",
            bars,
        )
    done = {
        row.label: own
        for row in comparison.rows
        if (own := [run for run in row.runs if run.status is Status.DONE])
    }
    yield from _heat_maps(comparison, done)
    chosen = dict(islice(done.items(), MOST_VARIANTS))
    left_out = f" The first {len(chosen)} of {len(done)} variants."
    for picture in _panels(chosen, comparison):
        caption = picture.caption + (left_out if len(chosen) < len(done) else "")
        yield picture._replace(caption=caption)


def _heat_maps(
    comparison: Comparison, done: Mapping[str, Sequence[RunResult]]
) -> Iterator[Picture]:
    shown = (WORST_GROUP, ATTACK_SUCCESS)
    rows = [
        {
            **factors(done[row.label][0].folder),
            "name": row.method,
            "swept": row.swept.get("attack", "none"),
            **{c.key: row.estimates[c.key].mean for c in shown if c.key in row.estimates},
        }
        for row in comparison.rows
        if row.label in done
    ]
    table = pd.DataFrame(rows)
    if not {WORST_GROUP.key, ATTACK_SUCCESS.key} & set(table):
        return
    lifts = table["reweighting"]
    table["method"] = table["defence"].where(lifts == "none", table["defence"] + ", " + lifts)
    methods = "method" if lifts.nunique() > 1 else "defence"
    if comparison.has_points:  # then methods have names, as in tables and other figures
        table[methods] = table["name"]
        table["attack"] = table["attack"].where(table["swept"] == "none", table["swept"])
    for down, across in ((methods, "attack"), ("defence", "reweighting")):
        n_rows, n_columns = table[down].nunique(), table[across].nunique()
        is_grid = not table.duplicated([down, across]).any()  # one variant per cell
        if is_grid and min(n_rows, n_columns) > 1 and len(table) >= FILLED * n_rows * n_columns:
            yield Picture(
                f"defence_by_{across}",
                f"{down.capitalize()} × {across}",
                "Means over seeds. Light is good."
                + (
                    " An attack on data alone has the name of its poison."
                    if across == "attack"
                    else ""
                ),
                heat_map(table, down, across),
            )


def factors(folder: Path) -> dict[str, str]:
    """Return a run's defence, attack and reweighting, each in a word or two."""
    scenario = scenario_in(folder)
    with as_written(folder / "scenario.yaml"):
        strategy = scenario.get("strategy", {})
        of_flower = {"kind": strategy.get("path", "?")}
        steps = [*strategy.get("pre_aggregation", []), strategy.get("aggregation", of_flower)]
        there = scenario.get("clients", {}).get("poisoned", 0) > 0
        kinds = (scenario.get("attackers") or [scenario]) if there else []
        attacks = dict.fromkeys(_attack({**scenario, **kind}) for kind in kinds)
        defence = " + ".join(map(_step, steps))
        lift = _kind(strategy, "reweighting") or "none"
        told = strategy.get("oracle", {})
        return {
            "defence": _corrected(defence, told.get("removing")),
            "attack": " + ".join(attacks) or "none",
            "reweighting": _corrected(lift, told.get("lifting")),
        }


def _corrected(method: str, by: str | None) -> str:
    """Return a method's name, with the oracle that corrects it, if one does."""
    return method if by in (None, "standard") else f"{method} ({by})"


def _step(step: Mapping[str, Any]) -> str:
    """Return a rule's or step's kind, and whether it is told how many clients attack."""
    told = step.get("args", step).get("n_malicious") == "oracle"
    return _corrected(_short(step["kind"]), "oracle" if told else None)


def _attack(attackers: Mapping[str, Any]) -> str:
    """Return what attackers do: the kind of their attack on the update, or else their poison."""
    if attackers.get("schedule", {}).get("first") == "never":
        return "none"
    return _kind(attackers, "attack") or _kind(attackers, "poison") or "none"


def _kind(mapping: Mapping[str, Any], key: str) -> str | None:
    """Return the kind of a mapping's part, None for none."""
    kind = (mapping.get(key) or {}).get("kind")
    return None if kind in (None, "none") else _short(kind)


def _short(kind: object) -> str:
    """Return a kind; of users' code the function's name without its file."""
    return str(kind).rpartition(":")[2]


def _panels(done: Mapping[str, Sequence[RunResult]], comparison: Comparison) -> Iterator[Picture]:
    federated = [label for label in done if (done[label][0].folder / "clients.csv").exists()]
    found = {row.label: row.estimates.get(SEPARABILITY.key, NO_VALUE) for row in comparison.rows}
    areas = {label: area.mean for label, area in found.items() if area.n}
    weights, ranks, heard = {}, {}, {}
    for label in federated:  # one variant's tables in memory at a time
        tables = [client_history(run.folder) for run in done[label]]
        weights[label] = [weight_ratios_by_round(clients) for clients in tables]
        if len(tables[0]):  # empty if no client ever answered
            heard[label] = heard_by_round(tables[0])
        if label in areas:
            pairs = zip(done[label], tables, strict=True)
            ranks[label] = pd.concat(
                suspicion_ranks(after_restart(run.folder, clients)) for run, clients in pairs
            )
    yield from _paged(
        "weights",
        "Weight over rounds",
        "Each role's weight over its fair share; bands from the lowest to the highest seed.",
        weights,
        weights_over_rounds,
    )
    yield from _paged(
        "groups",
        "Accuracy by group",
        "Mean over seeds.",
        {
            label: group_accuracy_by_round(runs)
            for label, runs in done.items()
            if (runs[0].folder / "rounds.csv").exists()  # runs on pooled data have none
        },
        group_curves,
    )
    yield from _paged(
        "clients",
        "Accuracy by client",
        "The last model, clients of all seeds: the share of a role's clients with at most that "
        "accuracy. Each is judged on test examples in its own mix of groups and classes, or on "
        "test examples of its own where it has some.",
        {
            label: accuracies
            for label in federated
            if all((run.folder / ACCURACIES).exists() for run in done[label])
            and len(accuracies := last_client_accuracies(done[label]))
        },
        client_accuracies,
    )
    yield from _paged(
        "scores",
        "Whom the rule suspects",
        "Where honest minorities and attackers stand in the rule's own order of suspicion, in all "
        "seeds and all rounds but those before a restart. AUC 0.5 means that it cannot tell them "
        "apart; the AUC leaves out rounds in which an attacker is honest.",
        {label: own for label, own in ranks.items() if len(own)},
        lambda page: score_distributions(page, areas),
    )
    yield from _paged(
        "heard",
        "Who was heard when",
        "The first seed of each variant, a row for each client that was ever sampled.",
        heard,
        heard_map,
    )


def _paged(
    name: str,
    title: str,
    caption: str,
    panels: Mapping[str, Any],
    draw: Callable[[dict[str, Any]], Figure],
) -> Iterator[Picture]:
    """Yield figures of at most ``PER_PAGE`` variants each."""
    labels = list(panels)
    pages = [labels[start : start + PER_PAGE] for start in range(0, len(labels), PER_PAGE)]
    for number, page in enumerate(pages, start=1):
        suffix = f"_{number}" if len(pages) > 1 else ""
        of_pages = f" ({number} of {len(pages)})" if len(pages) > 1 else ""
        yield Picture(
            name + suffix, title + of_pages, caption, draw({label: panels[label] for label in page})
        )
