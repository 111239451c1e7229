"""Whom every reweighting amplifies, under every backdoor, and what an oracle's choice would do."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments import pages
from experiments.oil_and_water_federated import runs
from fl_testbed.report.figures.style import GROUP_COLOURS, house_style

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
STANDARD = ("jtt", "agnostic", "afl", "drfa", "tilted", "q_fedavg", "fedmgda_plus")
GUIDED = ("jtt", "agnostic")
"""The methods that were also run guided by an oracle."""


def tables(results: Path = runs.HERE) -> dict[str, pages.Rows]:
    """Return the tables of the page."""
    rows = runs.kept("reweightings", results)
    return {
        "amplified": amplified(rows),
        "gaps": gaps(rows),
        "controls": controls(rows),
    }


def amplified(rows: pd.DataFrame) -> list[list[str]]:
    """Return worst group, ASR and weights under the federation's own backdoor."""
    own = runs.own_backdoor(rows)
    columns = runs.in_each(own, {"worst_group": "worst group", "attack_success": "ASR"})
    lines = [["", *columns.values(), "weight minority / attackers, mean of the datasets"]]
    for variant, label in runs.named(own["variant"]).items():
        chosen = pages.where(own, variant=variant)
        cells = [pages.mean_pm(pages.where(chosen, federation=n)[figure]) for n, figure in columns]
        lines.append([label, *cells, runs.weights(chosen)])
    return lines


def gaps(rows: pd.DataFrame) -> list[list[str]]:
    """Return ASR by who is lifted, how much higher it is with the standard choice than with the
    ideal one, and what the standard choice gains the worst group over no lift."""
    lines = [["", "ASR, no lift", "standard", "ideal †", "worst case †", "standard − ideal"]]
    lines[0] += ["worst group, gained"]
    for (name, point), own in rows[rows["point"] != "no_attack"].groupby(
        ["federation", "point"], sort=False
    ):
        for method in GUIDED:
            cases = ("none", method, f"{method}_ideal", f"{method}_worst_case")
            none, standard, ideal, worst = (pages.where(own, variant=case) for case in cases)
            cells = [pages.mean(of["attack_success"]) for of in (none, standard, ideal, worst)]
            gap = runs.gained(standard, ideal, "attack_success")
            gain = runs.gained(standard, none)
            label = f"{runs.FEDERATIONS[str(name)]}, {point} backdoor, {runs.name_of(method)}"
            lines.append([label, *cells, gap, gain])
    return lines


def controls(rows: pd.DataFrame) -> list[list[str]]:
    """Return the worst group where nobody attacks, and the ASR of an easier backdoor."""
    columns = {}
    for point, head in {
        "no_attack": "worst group, no attack",
        "easy": "ASR, easy backdoor",
    }.items():
        columns |= runs.in_each(pages.where(rows, point=point), {point: head})

    def cell(variant: str, at: tuple[str, str]) -> str:
        name, point = at
        own = pages.where(rows, variant=variant, federation=name, point=point)
        return pages.mean_pm(own["attack_success" if point == "easy" else "worst_group"])

    return pages.crossed("", runs.named(("none", *STANDARD)), columns, cell)


def figure(results: Path = runs.HERE) -> Figure:
    """Draw attack success and worst group by who is lifted."""
    own = runs.own_backdoor(runs.kept("reweightings", results))
    cases = {
        "no lift": "none",
        "standard": "{}",
        "ideal †": "{}_ideal",
        "worst case †": "{}_worst_case",
    }
    present = runs.federations(own)
    with house_style():
        drawing = Figure(figsize=(10, 5.2), layout="constrained")
        panels = drawing.subplots(2, len(GUIDED), sharex=True, sharey=True)
        for row, (column, title) in enumerate(
            {"attack_success": "attack success, %", "worst_group": "worst group, %"}.items()
        ):
            for axes, method in zip(panels[row], GUIDED, strict=True):
                for place, (label, pattern) in enumerate(cases.items()):
                    chosen = pages.where(own, variant=pattern.format(method))
                    means = chosen.groupby("federation")[column].mean().reindex([*present])
                    xs = [x + 0.2 * (place - 1.5) for x in range(len(present))]
                    axes.bar(xs, means, 0.18, label=label, color=GROUP_COLOURS[place])
                axes.set(title=f"{runs.name_of(method)}: {title}", ylim=(0, 100))
                axes.set_xticks(range(len(present)), [*present.values()])
        labels = panels[0][0].get_legend_handles_labels()
        drawing.legend(*labels, loc="outside upper center", ncols=len(cases))
    return drawing
