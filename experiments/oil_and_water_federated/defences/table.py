"""Who is suppressed: every rule under every attack."""

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


def tables(results: Path = runs.HERE) -> dict[str, str]:
    """Return the tables of the page; rules that cost the worst group most come first."""
    rows = runs.kept("defences", results)
    return {
        "by_federation": pages.markdown(by_federation(rows)),
        "by_attack": pages.markdown(by_attack(rows)),
        "contributions": pages.markdown(contributions(rows)),
    }


def ordered(rows: pd.DataFrame) -> list[str]:
    """Return the rules, those with the lowest worst group over federations first."""
    there = rows[rows["point"] == BASE]
    means = there.groupby("variant")["worst_group"].mean()
    return [str(rule) for rule in means.sort_values(kind="stable").index]


def by_federation(rows: pd.DataFrame) -> list[list[str]]:
    """Return what each rule costs the worst group against no defence, and the minority's weight."""
    there = rows[rows["point"] == BASE]
    present = runs.present(there)
    lines = [["rule", *(runs.FEDERATIONS[name] for name in present)]]
    for rule in ordered(rows):
        cells = []
        for name in present:
            own = there[there["federation"] == name]
            chosen, undefended = (own[own["variant"] == v] for v in (rule, "mean"))
            weight = pages.mean(chosen["weight_minority"], 2)
            if rule == "mean":
                level = f"{pages.mean(chosen['worst_group'])} %"
                cells.append(f"{level}, ASR {pages.mean(chosen['attack_success'])}")
                continue
            cells.append(f"{runs.gained(chosen, undefended)} ({weight})")
        lines.append([runs.name_of(rule), *cells])
    return lines


def by_attack(rows: pd.DataFrame) -> list[list[str]]:
    """Return the weights of minority and attackers, bold where attackers are heard more."""
    present = [name for name in ("fashion_mnist", "adult") if name in set(rows["federation"])]
    columns = [(name, attack) for name in present for attack in ATTACKS]
    lines = [["rule", *(f"{runs.FEDERATIONS[n]}: {ATTACKS[a]}" for n, a in columns)]]
    for rule in ordered(rows):
        cells = []
        for name, attack in columns:
            own = rows[(rows["federation"] == name) & (rows["point"] == attack)]
            own = own[own["variant"] == rule]
            cells.append(heard(own, "weight", attack != "no_attack"))
        lines.append([runs.name_of(rule), *cells])
    return lines


def contributions(rows: pd.DataFrame) -> list[list[str]]:
    """Return the contributions of minority and attackers, bold where attackers have more."""
    there = rows[rows["point"] == BASE]
    present = runs.present(there)
    lines = [["rule", *(runs.FEDERATIONS[name] for name in present)]]
    for rule in ordered(rows):
        own = there[there["variant"] == rule]
        cells = [heard(own[own["federation"] == name], "contribution", True) for name in present]
        lines.append([runs.name_of(rule), *cells])
    return lines


def heard(own: pd.DataFrame, figure: str, attacked: bool) -> str:
    """Return a figure of minority / attackers, bold where attackers are heard more."""
    minority, poisoned = (own[f"{figure}_{role}"].mean() for role in ("minority", "poisoned"))
    return pages.bold(runs.weights(own, figure), attacked and bool(poisoned > minority + 0.005))


def figure(results: Path = runs.HERE) -> Figure:
    """Draw the weights of minority and attackers under each rule."""
    rows = runs.kept("defences", results)
    rows = rows[rows["point"] == BASE]
    rules = ordered(rows)[::-1]
    present = runs.present(rows)
    with house_style():
        drawing = Figure(figsize=(11, 6), layout="constrained")
        panels = drawing.subplots(1, len(present), sharex=True, sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, present, strict=True):
            own = rows[rows["federation"] == name].groupby("variant")
            for role, column, marker in (
                (Role.HONEST_MINORITY, "weight_minority", "o"),
                (Role.POISONED, "weight_poisoned", "x"),
            ):
                means = own[column].mean().reindex(rules)
                label = "minority" if role is Role.HONEST_MINORITY else "attackers"
                axes.plot(means, range(len(rules)), marker, color=ROLE_COLOURS[role], label=label)
            axes.axvline(1, color=FAINT, linewidth=0.8)
            axes.set(title=runs.FEDERATIONS[name], xlabel="weight over fair share")
            axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.5)
        panels[0].set_yticks(range(len(rules)), [runs.name_of(rule) for rule in rules])
        labels = panels[0].get_legend_handles_labels()
        drawing.legend(*labels, loc="outside upper center", ncols=2)
    return drawing
