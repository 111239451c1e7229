"""The plane of worst group and attack success: every lift with every defence."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments import pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.directions.measure import shown
from experiments.oil_and_water_federated.runs import SUFFERING
from fl_testbed.report.figures.style import FAINT, GROUP_COLOURS, house_style
from fl_testbed.report.statistics import estimate

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
IDEAL = "jtt_ideal"
LIFTS = ("none", "jtt", "agnostic", "fedmgda_plus")
NEITHER = "no defence, no lift"
NAMED = {
    "fashion_mnist": {
        ("agnostic", "multi_krum"): ("agnostic, Multi-Krum", (14, 32)),
        ("fedmgda_plus", "norm_clipping"): ("FedMGDA+, clipping", (14, 15)),
        ("jtt", "mean"): ("JTT", (8, 22)),
        ("jtt", "loss_rejection"): ("JTT, LFR", (14, -14)),
        ("none", "mean"): (NEITHER, (14, -14)),
        ("jtt", "multi_krum"): ("JTT, Multi-Krum", (14, -11)),
        ("none", "multi_krum"): ("Multi-Krum", (14, 2)),
        ("agnostic", "caf"): ("agnostic, CAF", (-4, -26)),
    },
    "adult": {
        ("agnostic", "trimmed_mean"): ("agnostic, trimmed mean", (14, 44)),
        ("agnostic", "multi_krum"): ("agnostic, Multi-Krum", (14, -12)),
        ("jtt", "multi_krum"): ("JTT, Multi-Krum", (34, 24)),
        ("jtt", "mean"): ("JTT", (12, 16)),
        ("none", "mean"): (NEITHER, (32, 8)),
        ("none", "multi_krum"): ("Multi-Krum", (70, -24)),
        ("fedmgda_plus", "norm_clipping"): ("FedMGDA+, clipping", (14, 0)),
    },
    "writers": {
        ("none", "mean"): (NEITHER, (14, 26)),
        ("agnostic", "mean"): ("agnostic", (-4, -26)),
    },
    "faces": {
        ("none", "multi_krum"): ("Multi-Krum", (-4, -24)),
        ("none", "mean"): (NEITHER, (-12, 30)),
    },
}
"""Points labelled in the figure, with the label's offset, by federation, lift and rule."""
TOLD_TWO = "_told_2"  # ends the names of variants whose rules are told the true number of attackers
FAIR, SAFE = 5.0, 5.0
"""The goals: by how many points the worst group may be below the ideal lift's, and the highest
attack success allowed, in percent."""
COURSES = {
    "weight_poisoned": "attackers' weight",
    "length_poisoned": "length of their updates",
    "length_minority": "of the minority's",
}
"""Figures that are given for each third of the rounds, and their headings."""
MARGINS = (2.0, FAIR, 10.0, 20.0)
"""Other goals for the worst group: by how many points it may be below the ideal lift's."""
TRIMMED = {
    ("trimming_adult", "agnostic,attackers=backdoor"): "two attack",
    ("trimming_adult", "agnostic,attackers=no_attack"): "nobody attacks",
}
SIDES = {
    "same_side": "attackers on the minority's side",
    "minority_kept": "the minority's values kept",
    "attackers_kept": "attackers' kept",
    "attackers_own_kept": "attackers' kept where they differ",
}
"""Of updates under the agnostic lift with the trimmed mean: rows and columns."""
LOST_AGAIN = 30.0
"""An attack counts as lost again if its success was once more than this many points higher than in
the end."""


def tables(results: Path = runs.HERE) -> dict[str, pages.Rows]:
    """Return the tables of the page: one per federation, and how sure their verdicts are."""
    rows = plane(results)
    found = runs.by_federation(rows, of) | {"verdicts": verdicts(rows), "open": undecided(rows)}
    found |= {"unattacked": of_unattacked(results), "told_two": of_told_two(results)}
    found |= {"margins": margins(rows), "over_time": over_time(rows)}
    return found | shown("trimming", TRIMMED, SIDES, results)


def plane(results: Path) -> pd.DataFrame:
    """Return the runs of :func:`methods` whose defence was tried with a lift."""
    found = methods(results)
    combined = found.loc[found["lift"].isin(LIFTS[1:]), "defence"]
    return found[found["defence"].isin(combined)]


def methods(results: Path) -> pd.DataFrame:
    """Return every run against its federation's own backdoor, with columns ``lift`` and
    ``defence``."""
    found = runs.tried(results)
    return found[(found["point"] == "backdoor") & found["lift"].isin([*LIFTS, IDEAL])]


def goal(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the goals: the ideal lift's worst group less the margin, and the highest attack
    success."""
    ideal = pages.where(rows, lift=IDEAL)
    return ideal["worst_group"].mean() - FAIR, SAFE


def reached(own: pd.DataFrame, fair: float) -> bool:
    """Return whether a method's means reach both goals."""
    worst, success = own[["worst_group", "attack_success"]].mean()
    return bool(worst >= fair and success <= SAFE)


def judged(own: pd.DataFrame, ideal: "pd.Series[float]") -> pd.DataFrame:
    """Return runs with marks: ``fair``, the worst group is within the margin of the ideal lift's,
    which is given for each run; ``won``, attackers succeed; ``both``, both goals are reached."""
    fair, won = own["worst_group"] >= ideal - FAIR, own["attack_success"] > SAFE
    return own.assign(fair=fair, won=won, both=fair & ~won)


def verdict(own: pd.DataFrame, fair: float, safe: float) -> str:
    """Return whether a combination is in the corner of both goals, clearly outside it, or open.

    It is in the corner if its means are, and clearly outside if the 95 % interval of its worst
    group or of its attack success lies outside.
    """
    worst, success = (estimate(own[c].to_numpy()) for c in ("worst_group", "attack_success"))
    if worst.mean >= fair and success.mean <= safe:
        return "in it"
    below = worst.mean + worst.half_width < fair
    return "outside" if below or success.mean - success.half_width > safe else "open"


def suffering(rows: pd.DataFrame) -> list[tuple[str, str, str, pd.DataFrame, str]]:
    """Return federation, lift, rule, runs and verdict of each combination where groups suffer."""
    found = []
    for name in runs.federations(rows, SUFFERING):
        there = pages.where(rows, federation=name)
        both = there[there["lift"].isin(LIFTS[1:]) & (there["defence"] != "mean")]
        for (lift, defence), own in both.groupby(["lift", "defence"], sort=False):
            found.append((name, str(lift), str(defence), own, verdict(own, *goal(there))))
    return found


def verdicts(rows: pd.DataFrame) -> pages.Rows:
    """Return how many combinations are in the corner, outside it, or undecided."""
    lines = [["", "combinations", "in the corner", "clearly outside it", "too close to call"]]
    combinations = suffering(rows)
    for name, title in runs.federations(rows, SUFFERING).items():
        own = [kind for of, *_, kind in combinations if of == name]
        counts = (own.count(kind) for kind in ("in it", "outside", "open"))
        lines.append([title, str(len(own)), *map(str, counts)])
    return lines


def margins(rows: pd.DataFrame) -> pages.Rows:
    """Return how many combinations would reach both goals with other margins of the worst group."""
    titles, combinations = runs.federations(rows, SUFFERING), suffering(rows)
    ideal = {name: goal(pages.where(rows, federation=name))[0] + FAIR for name in titles}
    lines = [["points below the ideal lift's worst group", *titles.values(), "both"]]
    for margin in MARGINS:
        reach: dict[str, set[tuple[str, str]]] = {name: set() for name in titles}
        for name, lift, rule, own, _ in combinations:
            if reached(own, ideal[name] - margin):
                reach[name].add((lift, rule))
        counts = [*map(len, reach.values()), len(set.intersection(*reach.values()))]
        lines.append([pages.number(margin), *map(str, counts)])
    return lines


def undecided(rows: pd.DataFrame) -> pages.Rows:
    """Return worst group / ASR by seed of combinations whose intervals reach into the corner but
    whose means do not."""
    seeds = sorted(rows["seed"].unique())
    lines = [["worst group / ASR", "wanted", *(f"seed {seed}" for seed in seeds)]]
    for name, lift, defence, own, kind in suffering(rows):
        if kind != "open":
            continue
        fair, safe = goal(pages.where(rows, federation=name))
        by_seed = own.sort_values("seed")[["worst_group", "attack_success"]].to_numpy()
        label = f"{runs.FEDERATIONS[name]}: {runs.name_of(lift)}, {runs.name_of(defence)}"
        wanted = f"≥ {pages.number(fair, 1)} / ≤ {pages.number(safe)}"
        cells = [f"{pages.number(worst, 1)} / {pages.number(asr)}" for worst, asr in by_seed]
        lines.append([label, wanted, *cells])
    return lines


def over_time(rows: pd.DataFrame) -> pages.Rows:
    """Return attack success and attackers' weight in each third of the rounds: of methods that
    reach both goals where a group suffers, and of those under which an attack was lost again."""
    lines = [["lift, rule", "worst group", "ASR in the end", "at its highest"]]
    lines[0] += ["ASR by thirds of the rounds", *COURSES.values()]
    for name, title in runs.federations(rows).items():
        there = pages.where(rows, federation=name)
        standard = there[there["lift"].isin(LIFTS)]
        for (lift, rule), own in standard.groupby(["lift", "defence"], sort=False):
            fall = (own["attack_success_highest"] - own["attack_success"]).mean()
            reaches = name in SUFFERING and reached(own, goal(there)[0])
            if not (reaches or fall > LOST_AGAIN):
                continue
            ends = ("worst_group", "attack_success", "attack_success_highest")
            courses = [course(own, "attack_success", 0), *(course(own, c, 1) for c in COURSES)]
            label = f"{title}: {runs.name_of(str(lift))}, {runs.name_of(str(rule))}"
            lines.append([label, *(pages.mean_pm(own[end]) for end in ends), *courses])
    return lines


def course(own: pd.DataFrame, column: str, digits: int) -> str:
    """Return a figure's means in each third of the rounds."""
    return " → ".join(pages.mean(own[f"{column}_{third}"], digits) for third in (1, 2, 3))


def of(rows: pd.DataFrame) -> pages.Rows:
    """Return worst group / ASR, bold where a method that is no oracle reaches both goals."""
    fair, _ = goal(rows)

    def cell(defence: str, lift: str) -> str:
        if defence == IDEAL:
            return runs.outcome(pages.where(rows, lift=IDEAL)) if lift == "jtt" else "–"
        own = pages.where(rows, defence=defence, lift=lift)
        return pages.bold(runs.outcome(own), reached(own, fair))

    return pages.crossed("defence", _lines(rows["defence"]), runs.named(LIFTS), cell)


def _lines(defences: Iterable[str]) -> dict[str, str]:
    """Return the rows of a table: the mean, the defences, and last the ideal lift."""
    return runs.named(["mean", *defences]) | {IDEAL: "mean, JTT told the minority †"}


def of_unattacked(results: Path) -> pages.Rows:
    """Return the worst group where nobody attacks, bold if within 5 points of the ideal lift's."""
    rows = runs.tried(results).query("point == 'no_attack'")
    tried = rows.query("lift != 'none' and defence != 'mean'")
    columns = runs.in_each(tried, runs.named(LIFTS), SUFFERING)

    def cell(rule: str, at: tuple[str, str]) -> str:
        there, lift = pages.where(rows, federation=at[0]), at[1]
        if rule == IDEAL:
            ideal = pages.where(there, lift=IDEAL)["worst_group"]
            return pages.mean_pm(ideal) if lift == "jtt" else "–"
        worst = pages.where(there, lift=lift, defence=rule)["worst_group"]
        return pages.bold(pages.mean_pm(worst), bool(worst.mean() >= goal(there)[0]))

    return pages.crossed("defence", _lines(tried["defence"]), columns, cell)


def of_told_two(results: Path) -> pages.Rows:
    """Return worst group / ASR, and the worst group where nobody attacks, of rules that are told
    the true number of attackers; bold where both goals are reached, attacked or not."""
    rows = runs.tried(results)
    told = rows[rows["lift"].str.endswith(TOLD_TWO)]

    def cell(rule: str, at: tuple[str, str]) -> str:
        there = pages.where(rows, federation=at[0])
        own = pages.where(there, lift=at[1] + TOLD_TWO, defence=rule)
        attacked, unattacked = (pages.where(own, point=p) for p in ("backdoor", "no_attack"))
        fair = [goal(pages.where(there, point=p))[0] for p in ("backdoor", "no_attack")]
        both = reached(attacked, fair[0]) and unattacked["worst_group"].mean() >= fair[1]
        text = f"{runs.outcome(attacked)}; {pages.mean_pm(unattacked['worst_group'])}"
        return pages.bold(text, both)

    heading = "worst group / ASR; worst group unattacked"
    columns = runs.in_each(told, runs.named(LIFTS[1:]))
    return pages.crossed(heading, runs.named(told["defence"]), columns, cell)


def figure(results: Path = runs.HERE) -> Figure:
    """Draw every method as a point: worst group on the y axis, attack success on the x axis."""
    rows = plane(results)
    styles = {"none": "o", "jtt": "^", "agnostic": "s", "fedmgda_plus": "D", IDEAL: "*"}
    labels = {"none": "defence alone", "jtt": "with JTT", "agnostic": "with agnostic lift"}
    labels |= {"fedmgda_plus": "with FedMGDA+"}
    with house_style():
        drawing = Figure(figsize=(11, 4), layout="constrained")
        for name, axes in runs.panels(drawing, rows).items():
            own = pages.where(rows, federation=name)
            panel(axes, runs.FEDERATIONS[name], *goal(own))
            for place, (lift, marker) in enumerate(styles.items()):
                means = pages.where(own, lift=lift).groupby("defence")
                points = means[["attack_success", "worst_group"]].mean()
                axes.plot(
                    *points.to_numpy().T,
                    marker,
                    color=GROUP_COLOURS[place],
                    label=labels.get(lift, "ideal lift †"),
                    markersize=13 if lift == IDEAL else 6,
                    mfc="none" if lift == IDEAL else None,
                    zorder=3 if lift == IDEAL else 2,
                    alpha=0.8,
                )
            for (lift, defence), (text, shift) in NAMED.get(name, {}).items():
                point = pages.where(own, lift=lift, defence=defence)
                at = (point["attack_success"].mean(), point["worst_group"].mean())
                if lift == "none" and defence == "mean":
                    axes.plot(*at, "o", mfc="none", mec=FAINT, markersize=12)
                axes.annotate(
                    text,
                    at,
                    shift,
                    textcoords="offset points",
                    fontsize=8,
                    va="center",
                    ha="right" if shift[0] < 0 else "left",
                    arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.6, "shrinkB": 3},
                )
        drawing.axes[0].set_ylabel("worst group, %")
        drawing.axes[-1].legend(loc="lower right", fontsize=8)
    return drawing


def panel(axes: Axes, title: str, fair: float, safe: float) -> None:
    """Prepare a plane of attack success and worst group, with the corner of both goals in green."""
    corner = Rectangle((-4, fair), safe + 4, 104 - fair, color="#009E73", alpha=0.15, lw=0)
    axes.add_patch(corner)
    axes.set(title=title, xlabel="attack success, %", xlim=(-4, 104), ylim=(-4, 104))
