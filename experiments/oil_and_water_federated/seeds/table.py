"""Do twenty new seeds say what the first five said?"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments import headline, pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.combinations.table import (
    IDEAL,
    SAFE,
    goal,
    judged,
    methods,
    reached,
)
from experiments.oil_and_water_federated.sensitivity import table as sensitivity
from fl_testbed.report.figures.style import GROUP_COLOURS, INK, house_style
from fl_testbed.report.statistics import estimate

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
LIFTS = ("jtt", "agnostic", "fedmgda_plus")
WON = 50.0
"""A run with more than this attack success, in percent, counts as lost to the attackers."""
FIVES = {(low, low + 4): f"{low} to {low + 4}" for low in range(0, 25, 5)}
"""Seeds, five at a time; the first five are those of the other pages."""
FIGURES = {"worst_group": "worst group", "attack_success": "ASR"}
UNATTACKED = "unattacked"
TOLD_TWO = ("told_two", "told_two_unattacked")
"""Settings in which rules are told the true number of attackers: attacked, and not."""
ATTACKERS = {
    "": "as it is",
    "mimic": "they stand where the minority stands",
    "close_mimic": "half as far from it",
    "box_mimic": "near it in each coordinate",
    "high_loss": "they report ten times their loss",
}
"""What attackers do otherwise, by ``point``."""
SETTINGS = {
    {"base": "", "attackers": "four"}.get(point, point): name
    for point, name in sensitivity.SETTINGS.items()
}
"""Other settings, by ``point``. The setting ``attackers`` is ``four`` here."""
OTHERWISE = {*ATTACKERS, *SETTINGS, *TOLD_TWO, UNATTACKED}
ROUNDING = 0.05
"""Tolerance in points: the interval of five seeds with an ASR of 0 counts as containing 0.04."""


def tables(results: Path = runs.HERE) -> dict[str, pages.Rows]:
    """Return the tables of the page."""
    rows = new_seeds(results)
    plain = pages.where(rows, setting="")
    found = {"twenty": twenty(plain), "fives": fives(plain, results)}
    found |= {
        f"settings_{name}": table for name, table in runs.by_federation(rows, settings).items()
    }
    return found | {
        "attackers": attackers(rows),
        "unattacked": unattacked(pages.where(rows, setting=UNATTACKED)),
        "told_two": told_two(rows),
        "coverage": coverage(plain),
    }


def new_seeds(results: Path) -> pd.DataFrame:
    """Return the runs with lift and rule, and whether worst group and ASR reach their goals: the
    ideal lift's worst group with the same seed, less the margin, and the highest ASR allowed."""
    rows = runs.kept("seeds", results)
    parts = rows["variant"].map(lift_and_rule)
    rows = rows.assign(lift=parts.str[0], defence=parts.str[1])
    rows["setting"] = rows["point"].where(rows["point"].isin(OTHERWISE), "")
    keys = ["federation", "setting", "seed"]
    ideal = rows[rows["variant"] == IDEAL].set_index(keys)["worst_group"].rename("ideal")
    return judged(rows, rows.join(ideal, on=keys)["ideal"])


def lift_and_rule(variant: str) -> tuple[str, str]:
    """Return the lift and the rule that a variant's name stands for."""
    for lift in LIFTS:
        rule = variant.removeprefix(f"{lift}_")
        if rule != variant and rule in runs.NAMES:
            return lift, rule
    return (variant, "mean") if variant.startswith(LIFTS) else ("none", variant)


def named(rows: pd.DataFrame) -> dict[str, str]:
    """Return the variants with their names for readers; those of a lift with a rule come last."""
    pairs = rows.drop_duplicates("variant").set_index("variant")[["lift", "defence"]]
    both = (pairs["lift"] != "none") & (pairs["defence"] != "mean")
    found = {str(v): runs.name_of(str(v)) for v in pairs.index[~both]}
    combined = pairs[both].map(runs.name_of).agg(", ".join, axis=1)
    return found | combined.to_dict()


def named_in_each(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return federation and variant of each federation's own variants, with names for readers."""
    return {
        (federation, variant): f"{title}: {name}"
        for federation, title in runs.federations(rows).items()
        for variant, name in named(pages.where(rows, federation=federation)).items()
    }


def of(own: pd.DataFrame, marked: pd.Series) -> str:
    """Return in how many of the seeds something holds, or a dash where there are none."""
    return str(int(marked.sum())) if len(own) else "–"


def won(own: pd.DataFrame) -> str:
    """Return in how many of the seeds attackers succeed, and in how many the run is lost."""
    return " / ".join(of(own, own["attack_success"] > least) for least in (SAFE, WON))


def spread(values: pd.Series) -> str:
    """Return the mean ± half of its interval, and the lowest and highest."""
    if values.empty:
        return pages.mean_pm(values)
    ends = "–".join(pages.number(end) for end in (values.min(), values.max()))
    return f"{pages.mean_pm(values)} ({ends})"


def twenty(rows: pd.DataFrame) -> pages.Rows:
    """Return worst group, ASR, and in how many seeds attackers win and both goals are reached."""

    def cell(variant: str, at: tuple[str, str]) -> str:
        own = pages.where(rows, federation=at[0], variant=variant)
        if at[1] in FIGURES:
            return spread(own[at[1]]) if at[1] == "worst_group" else pages.mean_pm(own[at[1]])
        return of(own, own["both"]) if at[1] == "both" else won(own)

    heads = FIGURES | {"won": f"seeds with more than {SAFE:g} / {WON:g}", "both": "with both goals"}
    return pages.crossed("of 20 seeds", named(rows), runs.in_each(rows, heads), cell)


def fives(rows: pd.DataFrame, results: Path) -> pages.Rows:
    """Return worst group / ASR of combinations over five seeds at a time, bold where their means
    reach both goals."""
    first = methods(results)
    columns = ["federation", "lift", "defence", "seed", *FIGURES]
    both = rows[(rows["lift"] != "none") & (rows["defence"] != "mean")]
    ideal = rows[rows["variant"] == IDEAL].assign(lift=IDEAL)
    every = pd.concat([first[columns], both[columns], ideal[columns]], ignore_index=True)
    lines = {
        (str(name), str(lift), str(rule)): f"{runs.FEDERATIONS[str(name)]}: "
        f"{runs.name_of(str(lift))}, {runs.name_of(str(rule))}"
        for name, lift, rule in both.groupby(columns[:3], sort=False).groups
    }

    def cell(at: tuple[str, str, str], seeds: tuple[int, int]) -> str:
        there = every[every["seed"].between(*seeds) & (every["federation"] == at[0])]
        own = pages.where(there, lift=at[1], defence=at[2])
        text = " / ".join(pages.mean(own[figure]) for figure in FIGURES)
        return pages.bold(text, reached(own, goal(there)[0]))

    titles = FIVES | {(5, 24): "all new ones"}
    return pages.crossed("worst group / ASR, seeds", lines, titles, cell)


def settings(rows: pd.DataFrame) -> pages.Rows:
    """Return worst group / ASR by setting, bold where their means reach both goals, and in how many
    seeds attackers succeed and both goals are reached: of the methods tried in other settings."""
    tried = named(rows[rows["setting"].isin({*SETTINGS} - {""}) & (rows["variant"] != IDEAL)])
    lines = [["", "seeds"]]
    for name in tried.values():
        lines[0] += [f"{name}: worst group / ASR", f"ASR above {SAFE:g} / both goals"]
    lines[0].append("ideal lift †: worst group / ASR")
    for setting, name in SETTINGS.items():
        there = pages.where(rows, setting=setting)
        if there.empty:
            continue
        ideal, fair, cells = pages.where(there, variant=IDEAL), goal(there)[0], []
        for method in tried:
            own = pages.where(there, variant=method)
            cells.append(pages.bold(runs.outcome(own), reached(own, fair)))
            marks = (own["attack_success"] > SAFE, own["both"])
            cells.append(" / ".join(of(own, marked) for marked in marks))
        lines.append([name, str(len(ideal)), *cells, runs.outcome(ideal)])
    return lines


def attackers(rows: pd.DataFrame) -> pages.Rows:
    """Return the results of the best combinations, by what attackers do."""
    heads = ["of 20 seeds", "worst group", "ASR", f"seeds with more than {SAFE:g} / {WON:g}"]
    heads += ["with both goals", "weight minority / attackers", "ideal lift †: worst group / ASR"]
    lines = [heads]
    others = rows[rows["setting"].isin({*ATTACKERS} - {""})]
    for (federation, method), title in named_in_each(others[others["variant"] != IDEAL]).items():
        there = pages.where(rows, federation=federation)
        own, ideal = (pages.where(there, variant=v) for v in (method, IDEAL))
        for setting, name in ATTACKERS.items():
            found = pages.where(own, setting=setting)
            if found.empty:
                continue
            cells = [*(spread(found[figure]) for figure in FIGURES), won(found)]
            cells += [of(found, found["both"]), runs.weights(found)]
            cells.append(runs.outcome(pages.where(ideal, setting=setting)))
            lines.append([f"{title}: {name}", *cells])
    return lines


def coverage(rows: pd.DataFrame) -> pages.Rows:
    """Return how many intervals over five seeds contain the mean over the twenty new ones, and how
    many reach below 0 or above 100 %."""
    top = headline.rows()
    found = []
    for (name, lift, rule), own in rows.groupby(["federation", "lift", "defence"]):
        old = pages.where(top, federation=name, lift=lift, defence=rule)
        for figure in FIGURES:
            shares = own[figure] > WON
            split = figure == "attack_success" and 0 < shares.mean() < 1
            batches = (own[own["seed"].between(*seeds)] for seeds in FIVES)
            for page, batch in (("top", old), *(("new", batch) for batch in batches)):
                if len(batch):
                    middle, half, _ = estimate(batch[figure].to_numpy())
                    holds = abs(middle - own[figure].mean()) <= half + ROUNDING
                    beyond = middle - half < 0 or middle + half > 100
                    found.append((figure, split, page, holds, beyond))
    every = pd.DataFrame(found, columns=["figure", "split", "page", "holds", "beyond"])
    wins = every["figure"] == "attack_success"
    kinds = {
        "worst group": every[~wins],
        "ASR, where seeds fall on both sides of 50": every[wins & every["split"]],
        "ASR elsewhere": every[wins & ~every["split"]],
    }
    lines = [["intervals over five seeds", "seeds 0 to 4", "new seeds, five at a time"]]
    lines[0] += ["of both, reach below 0 or above 100"]
    for title, own in kinds.items():
        parts = [own[own["page"] == page]["holds"] for page in ("top", "new")]
        cells = [f"{marks.sum()} of {len(marks)}" for marks in (*parts, own["beyond"])]
        lines.append([title, *cells])
    return lines


def unattacked(rows: pd.DataFrame) -> pages.Rows:
    """Return the worst group where nobody attacks, and in how many seeds it is fair or lost."""
    lines = [
        ["nobody attacks", "worst group", "seeds within 5 points of the ideal lift", "below 5"]
    ]
    for (federation, variant), name in named_in_each(rows).items():
        own = pages.where(rows, federation=federation, variant=variant)
        low = of(own, own["worst_group"] < SAFE)
        lines.append([name, spread(own["worst_group"]), of(own, own["fair"]), low])
    return lines


def told_two(rows: pd.DataFrame) -> pages.Rows:
    """Return the results of combinations whose rules are told the true number of attackers, and in
    how many seeds goals are reached: attacked, where nobody attacks, and in both cases."""
    lines = [["rules told 2", "worst group / ASR", "both goals", "unattacked: worst group"]]
    lines[0] += ["the goal", "all goals"]
    for (federation, variant), name in named_in_each(rows[rows["setting"].isin(TOLD_TWO)]).items():
        own = pages.where(rows, federation=federation, variant=variant).set_index("seed")
        attacked, alone = (pages.where(own, setting=setting) for setting in TOLD_TWO)
        cells = [runs.outcome(attacked), of(attacked, attacked["both"])]
        cells += [spread(alone["worst_group"]), of(alone, alone["fair"])]
        lines.append([name, *cells, of(attacked, attacked["both"] & alone["fair"])])
    return lines


def figure(results: Path = runs.HERE) -> Figure:
    """Draw every new seed of every method as a point, worst group and ASR in a panel each."""
    rows = pages.where(new_seeds(results), setting="")
    with house_style():
        drawing = Figure(figsize=(11, 5.5), layout="constrained")
        titles = runs.federations(rows)
        panels = drawing.subplots(1, 2 * len(titles), sharey=True, squeeze=False)[0]
        names = named(rows)
        places = {variant: len(names) - place for place, variant in enumerate(names)}
        for place, (name, title) in enumerate(titles.items()):
            own = pages.where(rows, federation=name)
            for axes, (column, label) in zip(panels[2 * place :], FIGURES.items(), strict=False):
                style = {"color": GROUP_COLOURS[place], "mfc": "none", "alpha": 0.7, "ms": 5}
                axes.plot(own[column], own["variant"].map(places), "o", **style)
                means = own.groupby("variant")[column].mean()
                axes.plot(means, means.index.map(places), "|", color=INK, ms=12, mew=2)
                axes.set(title=title, xlabel=f"{label}, %", xlim=(-4, 104))
        panels[0].set_yticks([*places.values()], [*names.values()])
    return drawing
