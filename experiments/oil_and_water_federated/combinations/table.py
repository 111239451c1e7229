"""The tension plane: every lift with every defence, against the federation's backdoor."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments import pages
from experiments.oil_and_water_federated import runs
from fl_testbed.report.figures.style import FAINT, GROUP_COLOURS, house_style

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
LIFTS = ("none", "jtt", "agnostic")
FAIR, SAFE = 5.0, 5.0
"""Points below the ideal lift's worst group, and percent of attack success, that reach both."""


def tables(results: Path = runs.HERE) -> dict[str, str]:
    """Return the tables of the page, one per federation."""
    return runs.by_federation(plane(results), of)


def plane(results: Path) -> pd.DataFrame:
    """Return the runs of the defences that were tried with a lift, see :func:`methods`."""
    found = methods(results)
    combined = found.loc[found["lift"].isin(["jtt", "agnostic"]), "defence"]
    return found[found["defence"].isin(combined)]


def methods(results: Path) -> pd.DataFrame:
    """Return every run against the own backdoor, with columns ``lift`` and ``defence``."""
    alone = runs.base_point(results)
    rules = alone["point"] == "backdoor"
    alone = alone.assign(
        lift=alone["variant"].where(~rules, "none"),
        defence=alone["variant"].where(rules, "mean"),
    )
    both = runs.kept("combinations", results)
    both = both.assign(lift=both["variant"], defence=both["point"])
    found = pd.concat([alone, both], ignore_index=True)
    return found[found["lift"].isin([*LIFTS, "jtt_ideal"])]


def goal(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the ideal lift's worst group less the margin, and the most attack success."""
    ideal = rows[rows["lift"] == "jtt_ideal"]
    return ideal["worst_group"].mean() - FAIR, SAFE


def of(rows: pd.DataFrame) -> list[list[str]]:
    """Return worst group / ASR, bold where a method that is no oracle reaches both."""
    fair, safe = goal(rows)
    lines = [["defence", *(runs.name_of(lift) for lift in LIFTS)]]
    for defence in sorted(rows["defence"].unique(), key=lambda d: d != "mean"):
        cells = []
        for lift in LIFTS:
            own = rows[(rows["defence"] == defence) & (rows["lift"] == lift)]
            both = own["worst_group"].mean() >= fair and own["attack_success"].mean() <= safe
            worst, success = (pages.mean_pm(own[c]) for c in ("worst_group", "attack_success"))
            cells.append(pages.bold(f"{worst} / {success}", both))
        lines.append([runs.name_of(defence), *cells])
    ideal = rows[rows["lift"] == "jtt_ideal"]
    worst, success = (pages.mean_pm(ideal[c]) for c in ("worst_group", "attack_success"))
    lines.append(["mean, JTT told the minority †", "–", f"{worst} / {success}", "–"])
    return lines


def figure(results: Path = runs.HERE) -> Figure:
    """Draw every method as a point: worst group up, attack success to the right."""
    rows = plane(results)
    present = runs.present(rows)
    styles = {"none": "o", "jtt": "^", "agnostic": "s", "jtt_ideal": "*"}
    labels = {"none": "defence alone", "jtt": "with JTT", "agnostic": "with agnostic lift"}
    with house_style():
        drawing = Figure(figsize=(11, 3.6), layout="constrained")
        panels = drawing.subplots(1, len(present), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, present, strict=True):
            own = rows[rows["federation"] == name]
            fair, safe = goal(own)
            corner = Rectangle((-4, fair), safe + 4, 104 - fair, color="#009E73", alpha=0.15, lw=0)
            axes.add_patch(corner)
            for place, (lift, marker) in enumerate(styles.items()):
                means = own[own["lift"] == lift].groupby("defence")
                points = means[["attack_success", "worst_group"]].mean()
                axes.plot(
                    points["attack_success"],
                    points["worst_group"],
                    marker,
                    color=GROUP_COLOURS[place],
                    label=labels.get(lift, "ideal lift †"),
                    markersize=11 if lift == "jtt_ideal" else 6,
                    alpha=0.8,
                )
            plain = own[(own["lift"] == "none") & (own["defence"] == "mean")]
            at = (plain["attack_success"].mean(), plain["worst_group"].mean())
            axes.plot(*at, "o", mfc="none", mec=FAINT, markersize=12, label="neither")
            axes.set(title=runs.FEDERATIONS[name], xlabel="attack success, %")
            axes.set(xlim=(-4, 104), ylim=(-4, 104))
        panels[0].set_ylabel("worst group, %")
        panels[-1].legend(loc="lower right", fontsize=8)
    return drawing
