"""Who is amplified: every reweighting with every backdoor, and what an oracle would have lifted."""

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
"""Those that an oracle guided as well."""


def tables(results: Path = runs.HERE) -> dict[str, str]:
    """Return the tables of the page."""
    rows = runs.kept("reweightings", results)
    return {
        "amplified": pages.markdown(amplified(rows)),
        "gaps": pages.markdown(gaps(rows)),
        "controls": pages.markdown(controls(rows)),
    }


def amplified(rows: pd.DataFrame) -> list[list[str]]:
    """Return worst group, ASR and weights under the federation's own backdoor."""
    own = runs.own_backdoor(rows)
    present = list(own["federation"].unique())
    heads = [f"{runs.FEDERATIONS[n]}: {what}" for n in present for what in ("worst group", "ASR")]
    lines = [["", *heads, "weight minority / attackers, mean of the datasets"]]
    for variant in own["variant"].unique():
        chosen = own[own["variant"] == variant]
        cells = [
            pages.mean_pm(chosen.loc[chosen["federation"] == name, column])
            for name in present
            for column in ("worst_group", "attack_success")
        ]
        lines.append([runs.name_of(variant), *cells, runs.weights(chosen)])
    return lines


def gaps(rows: pd.DataFrame) -> list[list[str]]:
    """Return what the standard choice costs over the ideal one, and how much of the worst case."""
    lines = [["", "ASR, no lift", "standard", "ideal †", "worst case †", "standard − ideal"]]
    lines[0] += ["worst group, gained"]
    for (name, point), own in rows[rows["point"] != "no_attack"].groupby(
        ["federation", "point"], sort=False
    ):
        for method in GUIDED:
            runs_of = {v: own[own["variant"] == v] for v in own["variant"].unique()}
            cases = ("none", method, f"{method}_ideal", f"{method}_worst_case")
            cells = [pages.mean(runs_of[case]["attack_success"]) for case in cases]
            gap = runs.gained(runs_of[method], runs_of[f"{method}_ideal"], "attack_success")
            gain = runs.gained(runs_of[method], runs_of["none"])
            label = f"{runs.FEDERATIONS[str(name)]}, {point} backdoor, {runs.name_of(method)}"
            lines.append([label, *cells, gap, gain])
    return lines


def controls(rows: pd.DataFrame) -> list[list[str]]:
    """Return the worst group without attackers, and ASR of a backdoor that needs no lift."""
    present = runs.present(rows)
    easy = [n for n in present if len(rows[(rows["federation"] == n) & (rows["point"] == "easy")])]
    heads = [f"{runs.FEDERATIONS[n]}: worst group, no attack" for n in present]
    lines = [["", *heads, *(f"{runs.FEDERATIONS[n]}: ASR, easy backdoor" for n in easy)]]
    for variant in ("none", *STANDARD):
        own = rows[rows["variant"] == variant]
        cells = [
            pages.mean_pm(own.loc[(own["federation"] == n) & (own["point"] == point), column])
            for names, point, column in (
                (present, "no_attack", "worst_group"),
                (easy, "easy", "attack_success"),
            )
            for n in names
        ]
        lines.append([runs.name_of(variant), *cells])
    return lines


def figure(results: Path = runs.HERE) -> Figure:
    """Draw attack success by case, for the methods that an oracle guided as well."""
    own = runs.own_backdoor(runs.kept("reweightings", results))
    cases = {
        "no lift": "none",
        "standard": "{}",
        "ideal †": "{}_ideal",
        "worst case †": "{}_worst_case",
    }
    present = list(own["federation"].unique())
    with house_style():
        drawing = Figure(figsize=(10, 5.2), layout="constrained")
        panels = drawing.subplots(2, len(GUIDED), sharex=True, sharey=True)
        for row, (column, title) in enumerate(
            {"attack_success": "attack success, %", "worst_group": "worst group, %"}.items()
        ):
            for axes, method in zip(panels[row], GUIDED, strict=True):
                for place, (label, pattern) in enumerate(cases.items()):
                    chosen = own[own["variant"] == pattern.format(method)]
                    means = chosen.groupby("federation")[column].mean().reindex(present)
                    xs = [x + 0.2 * (place - 1.5) for x in range(len(present))]
                    axes.bar(xs, means, 0.18, label=label, color=GROUP_COLOURS[place])
                axes.set(title=f"{runs.name_of(method)}: {title}", ylim=(0, 100))
                axes.set_xticks(range(len(present)), [runs.FEDERATIONS[n] for n in present])
        labels = panels[0][0].get_legend_handles_labels()
        drawing.legend(*labels, loc="outside upper center", ncols=len(cases))
    return drawing
