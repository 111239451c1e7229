"""Whom every rule suppresses, under every attack."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from clients.shard import Role
from experiments import pages
from experiments.oil_and_water_federated import runs
from fl_testbed.report.figures.style import FAINT, ROLE_COLOURS, house_style

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
ATTACKS = {
    "no_attack": "no attack",
    "backdoor": "backdoor",
    "min_max": "Min-Max",
    "minority_mimic": "minority-mimic",
}
BASE = "backdoor"


def tables(results: Path = runs.HERE) -> dict[str, pages.Rows]:
    """Return the tables of the page; rules that cost the worst group most come first."""
    rows = runs.kept("defences", results)
    return {
        "by_federation": by_federation(rows),
        "success": success(rows),
        "by_attack": by_attack(rows),
        "contributions": contributions(rows),
    }


def ordered(rows: pd.DataFrame) -> list[str]:
    """Return the rules, those with the lowest worst group over federations first."""
    means = pages.where(rows, point=BASE).groupby("variant")["worst_group"].mean()
    return [str(rule) for rule in means.sort_values(kind="stable").index]


def by_federation(rows: pd.DataFrame) -> list[list[str]]:
    """Return what each rule costs the worst group over no defence, and the minority's weight."""
    there = pages.where(rows, point=BASE)

    def cell(rule: str, name: str) -> str:
        chosen, undefended = (
            pages.where(there, federation=name, variant=v) for v in (rule, "mean")
        )
        if rule == "mean":
            level = f"{pages.mean(chosen['worst_group'])} %"
            return f"{level}, ASR {pages.mean(chosen['attack_success'])}"
        weight = pages.mean(chosen["weight_minority"], 2)
        return f"{runs.gained(chosen, undefended)} ({weight})"

    return pages.crossed("rule", runs.named(ordered(rows)), runs.federations(there), cell)


def success(rows: pd.DataFrame) -> list[list[str]]:
    """Return the backdoor's success under each rule: in the end / where it is highest."""
    there = pages.where(rows, point=BASE)

    def cell(rule: str, name: str) -> str:
        own = pages.where(there, variant=rule, federation=name)
        last, most = own["attack_success"], own["attack_success_highest"]
        return f"{pages.mean(last)} / {pages.mean_pm(most)}"

    return pages.crossed("rule", runs.named(ordered(rows)), runs.federations(there), cell)


def by_attack(rows: pd.DataFrame) -> list[list[str]]:
    """Return the weights of minority and attackers, bold where attackers have more."""
    columns = runs.in_each(rows, ATTACKS, runs.SUFFERING)

    def cell(rule: str, at: tuple[str, str]) -> str:
        own = pages.where(rows, federation=at[0], point=at[1], variant=rule)
        return heard(own, "weight", at[1] != "no_attack")

    return pages.crossed("rule", runs.named(ordered(rows)), columns, cell)


def contributions(rows: pd.DataFrame) -> list[list[str]]:
    """Return the contributions of minority and attackers, bold where attackers have more."""
    there = pages.where(rows, point=BASE)

    def cell(rule: str, name: str) -> str:
        return heard(pages.where(there, variant=rule, federation=name), "contribution", True)

    return pages.crossed("rule", runs.named(ordered(rows)), runs.federations(there), cell)


def heard(own: pd.DataFrame, figure: str, attacked: bool) -> str:
    """Return a figure of minority / attackers, bold where attackers have more."""
    minority, poisoned = (own[f"{figure}_{role}"].mean() for role in ("minority", "poisoned"))
    return pages.bold(runs.weights(own, figure), attacked and bool(poisoned > minority + 0.005))


def figure(results: Path = runs.HERE) -> Figure:
    """Draw the weights of minority and attackers under each rule."""
    rows = pages.where(runs.kept("defences", results), point=BASE)
    rules = ordered(rows)[::-1]
    with house_style():
        drawing = Figure(figsize=(11, 6), layout="constrained")
        for name, axes in runs.panels(drawing, rows, sharex=True).items():
            own = pages.where(rows, federation=name).groupby("variant")
            for role, label, column, marker in (
                (Role.HONEST_MINORITY, "minority", "weight_minority", "o"),
                (Role.POISONED, "attackers", "weight_poisoned", "x"),
            ):
                means = own[column].mean().reindex(rules)
                axes.plot(means, range(len(rules)), marker, color=ROLE_COLOURS[role], label=label)
            axes.axvline(1, color=FAINT, linewidth=0.8)
            axes.set_xlabel("weight over fair share")
            axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.5)
        drawing.axes[0].set_yticks(range(len(rules)), [runs.name_of(rule) for rule in rules])
        labels = drawing.axes[0].get_legend_handles_labels()
        drawing.legend(*labels, loc="outside upper center", ncols=2)
    return drawing
