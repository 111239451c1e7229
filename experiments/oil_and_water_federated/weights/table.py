"""Does weight explain the results? The mean with a role at a chosen weight, beside rules and
lifts."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments import pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.defences.table import ordered
from fl_testbed.report.figures.style import FAINT, GROUP_COLOURS, house_style

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
MEAN = "mean"
SIDES = {"minority": "minority", "attackers": "poisoned"}
"""The role whose weight is chosen, as variants and as columns call it."""
OTHERS = {
    "minority_0": "the minority's four, always †",
    "majority_4": "four of the majority, always",
    "any_26": "any four of the 30, drawn anew in every round",
    "any_1": "any 29 of the 30, drawn anew in every round",
}
"""Who is silenced, by variant."""
SHIELDED = "_shielded"
BY_COORDINATE = ("coordinate_median", "trimmed_mean", "mean_around_median", "robust_learning_rate")
"""Rules for which a client's weight is its share of coordinates, or which flip the sign of
some coordinates."""
LIFTS = ("jtt", "agnostic", "afl", "drfa", "tilted", "q_fedavg", "fedmgda_plus")
MEASURES = {"weight": "weight", "contribution": "contribution"}
CLOSE = 5.0
"""A rule is close if its worst group is within so many points of the mean's at equal weight."""
RATIO = "ratio_poisoned"


def tables(results: Path = runs.HERE) -> dict[str, pages.Rows]:
    """Return the tables of the page."""
    rows = everything(results)
    found = {"doses": doses(rows), "others": others(rows), "counts": counts(rows)}
    return found | {"explained": explained(rows), "lifted": lifted(rows)}


def everything(results: Path) -> pd.DataFrame:
    """Return the question's runs and those of rules and lifts, where groups suffer."""
    rows = pd.concat([runs.base_point(results), runs.kept("weights", results)], ignore_index=True)
    rows[RATIO] = rows["weight_poisoned"] / rows["weight_majority"]
    return rows[rows["federation"].isin(runs.SUFFERING)]


def curve(rows: pd.DataFrame, side: str) -> pd.DataFrame:
    """Return the runs of the mean with a role at each chosen weight, the plain mean included."""
    return rows[rows["variant"].str.startswith(f"{side}_") | (rows["variant"] == MEAN)]


def at(doses: pd.DataFrame, own: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Return, by seed, the figure y that the mean has where its figure x equals that of a method's
    run: interpolated linearly between the two nearest runs of the mean with that seed."""
    by_x = doses.sort_values(x)[["seed", x, y]].to_numpy()
    lines = {seed: by_x[by_x[:, 0] == seed, 1:].T for seed in np.unique(by_x[:, 0])}
    values = zip(own["seed"], own[x], strict=True)
    return pd.Series({seed: np.interp(value, *lines[seed]) for seed, value in values}, dtype=float)


def gaps(rows: pd.DataFrame, name: str, measure: str) -> dict[str, tuple]:
    """Return each rule's runs, and by seed the worst group of the mean where the minority has the
    same measure (weight or contribution)."""
    there = pages.where(rows, federation=name)
    of_mean, x = curve(there, "minority"), f"{measure}_minority"
    own_rules = rules(there)
    owns = {str(rule): own for rule, own in there.groupby("variant") if rule in own_rules}
    return {rule: (own, at(of_mean, own, x, "worst_group")) for rule, own in owns.items()}


def rules(rows: pd.DataFrame) -> list[str]:
    """Return the rules of the first page in its order: the harshest first."""
    judged = rows[rows["variant"].isin(rows.loc[rows["lift"] == "none", "variant"])]
    return [rule for rule in ordered(judged) if rule != MEAN]


def doses(rows: pd.DataFrame) -> pages.Rows:
    """Return worst group / ASR for each weight that was tried."""
    titles = runs.federations(rows)
    heads = (f"{title}: worst group / ASR" for title in titles.values())
    lines = [["who, times the others", "weight", *heads]]
    for side, role in SIDES.items():
        there = curve(rows, side)
        weights = there.groupby("variant")[f"weight_{role}"].mean().sort_values()
        for variant, weight in weights.items():
            own = pages.where(there, variant=variant)
            factor = "1" if variant == MEAN else str(variant).rpartition("_")[2]
            cells = (runs.outcome(pages.where(own, federation=name)) for name in titles)
            lines.append([f"{side}, {factor}", pages.number(weight, 2), *cells])
    return lines


def others(rows: pd.DataFrame) -> pages.Rows:
    """Return what silencing other clients costs, and rules' results with the minority shielded."""
    shielded = [v for v in rows["variant"].unique() if v.endswith(SHIELDED)]
    named = {MEAN: "nobody", **OTHERS}
    for variant in shielded:
        rule = variant.removesuffix(SHIELDED)
        named[rule] = f"those of {runs.name_of(rule)}"
        named[variant] = "the same, the minority shielded †"

    def cell(variant: str, key: tuple[str, str]) -> str:
        there = pages.where(rows, federation=key[0])
        own, plain = (pages.where(there, variant=v) for v in (variant, MEAN))
        if key[1] == "worst_group":
            return pages.mean_pm(own["worst_group"])
        return "–" if variant == MEAN else runs.gained(own, plain)

    heads = {"worst_group": "worst group", "change": "against nobody"}
    return pages.crossed("who is silenced", named, runs.in_each(rows, heads), cell)


def counts(rows: pd.DataFrame) -> pages.Rows:
    """Return how close rules are to the mean at the same weight or contribution."""
    found = {
        (name, measure): {
            rule: (own.set_index("seed")["worst_group"] - expected).mean()
            for rule, (own, expected) in gaps(rows, name, measure).items()
        }
        for name in runs.federations(rows)
        for measure in MEASURES
    }

    def cell(line: str, key: tuple[str, str]) -> str:
        apart = pd.Series(found[key]).abs()
        if line == "close":
            return f"{(apart <= CLOSE).sum()} of {apart.count()}"
        coordinate = apart.index.isin(BY_COORDINATE)
        return pages.mean(apart[coordinate if line == "coordinate" else ~coordinate], 1)

    lines = {
        "close": f"rules within {pages.number(CLOSE)} points",
        "coordinate": "mean distance of the four that judge by coordinate",
        "others": "mean distance of the others",
    }
    columns = runs.in_each(rows, {m: f"by {text}" for m, text in MEASURES.items()})
    return pages.crossed("worst group, against the mean's", lines, columns, cell)


def explained(rows: pd.DataFrame) -> pages.Rows:
    """Return each rule's worst group beside the mean's with the minority at the same weight."""
    found = {name: gaps(rows, name, "weight") for name in runs.federations(rows)}

    def cell(rule: str, key: tuple[str, str]) -> str:
        own, expected = found[key[0]][rule]
        if key[1] == "weight":
            return pages.mean(own["weight_minority"], 2)
        if key[1] == "gap":
            return pages.difference(own.set_index("seed")["worst_group"] - expected)
        return pages.mean(own["worst_group"] if key[1] == "own" else expected)

    heads = {"weight": "weight", "own": "worst group", "mean": "the mean's", "gap": "difference"}
    return pages.crossed("rule", runs.named(rules(rows)), runs.in_each(rows, heads), cell)


def lifted(rows: pd.DataFrame) -> pages.Rows:
    """Return each lift's ASR beside the mean's with the same ratio of attackers' weight to the
    majority's."""

    def cell(lift: str, key: tuple[str, str]) -> str:
        there = pages.where(rows, federation=key[0])
        own = pages.where(there, variant=lift)
        if key[1] == "ratio":
            return pages.mean(own[RATIO], 1)
        if key[1] == "mean":
            return pages.mean(at(curve(there, "attackers"), own, RATIO, "attack_success"))
        return pages.mean_pm(own[key[1]])

    heads = {"ratio": "attackers / majority", "attack_success": "ASR", "mean": "the mean's"}
    return pages.crossed("lift", runs.named(LIFTS), runs.in_each(rows, heads), cell)


def figure(results: Path = runs.HERE) -> Figure:
    """Draw the worst group by the minority's weight: the mean as a curve, rules as points."""
    rows = everything(results)
    with house_style():
        drawing = Figure(figsize=(10, 3.8), layout="constrained")
        for name, axes in runs.panels(drawing, rows).items():
            there = pages.where(rows, federation=name)
            shown = ["weight_minority", "worst_group"]
            means = there.groupby("variant")[shown].mean()
            line = means.loc[curve(there, "minority")["variant"].unique()].sort_values(shown[0])
            axes.plot(*line.to_numpy().T, "-", color=FAINT, label="the mean, at that weight", lw=2)
            coordinate = [rule for rule in rules(there) if rule in BY_COORDINATE]
            judging = [rule for rule in rules(there) if rule not in BY_COORDINATE]
            styles = {
                "rules that judge by coordinate": (coordinate, "s"),
                "other rules": (judging, "o"),
                "lifts": ([lift for lift in LIFTS if lift in means.index], "^"),
            }
            for place, (label, (methods, marker)) in enumerate(styles.items()):
                points = means.loc[methods].to_numpy().T
                axes.plot(*points, marker, color=GROUP_COLOURS[place], label=label, alpha=0.8)
            axes.set_xlabel("the minority's weight over its fair share")
        drawing.axes[0].set_ylabel("worst group, %")
        drawing.axes[-1].legend(loc="lower right", fontsize=8)
    return drawing
