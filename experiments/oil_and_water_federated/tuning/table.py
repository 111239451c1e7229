"""Would other constants reach both goals? Chosen with the truth on some seeds, tried on others."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.combinations.table import FAIR, IDEAL, SAFE, panel, reached
from fl_testbed.report.figures.style import GROUP_COLOURS, house_style
from fl_testbed.report.statistics import estimate

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
LIFTS = {"jtt": "6_5", "agnostic": "0.2", "fedmgda_plus": "0.1"}
RULES = {
    "mean": "",
    "multi_krum": "4",
    "trimmed_mean": "4",
    "loss_rejection": "4",
    "norm_clipping": "median",
    "foolsgold": "1",
    "geometric_median": "",
}
"""Lifts and rules, with their constants on the other pages."""
RULE_NAMES = {"mean": "none", "norm_clipping": "clipping", "geometric_median": "geometric median"}
"""Names shorter than on the other pages, or without a constant that varies here."""
FLAGGING = {"jtt": "their own losses", "jtt_high_loss": "ten times their losses"}
"""Variants of JTT without a rule, and the losses that attackers report to each."""


def tables(results: Path = runs.HERE) -> dict[str, pages.Rows]:
    """Return the tables of the page: results with the best constants, and by JTT's flags."""
    rows = by_federation(results)
    found = {"counts": counts(rows), "flags": of_flags(pd.concat(rows.values()))}
    return found | {name: of_best(name, rows) for name in rows}


def by_federation(results: Path) -> dict[str, pd.DataFrame]:
    """Return the runs of each federation."""
    rows = runs.kept("tuning", results)
    return {name: pages.where(rows, federation=name) for name in runs.SUFFERING}


def searched(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the runs to choose by, with columns for kind and constants of lift and of rule."""
    parts = {}
    for part, column, kinds in (("lift", "variant", LIFTS), ("rule", "point", RULES)):
        split = rows[column].str.extract(rf"^({'|'.join(kinds)})_?(.*)$")
        parts |= {part: split[0], f"{part}_constants": split[1]}
    return rows.assign(**parts).dropna(subset=["rule"])


def fair(rows: pd.DataFrame, own: pd.DataFrame) -> float:
    """Return the worst group that runs should reach: the ideal lift's with their seeds, less 5."""
    point = "no_attack" if (own["point"] == "no_attack").all() else "backdoor"
    ideal = pages.where(rows, variant=IDEAL, point=point)
    return ideal.loc[ideal["seed"].isin(own["seed"]), "worst_group"].mean() - FAIR


def both(rows: pd.DataFrame, own: pd.DataFrame) -> bool:
    """Return whether runs of a federation reach both goals."""
    return reached(own, fair(rows, own))


def clearly(rows: pd.DataFrame, own: pd.DataFrame) -> bool:
    """Return whether the 95 % intervals of worst group and ASR lie within the goals."""
    worst, success = (estimate(own[c].to_numpy()) for c in ("worst_group", "attack_success"))
    lowest, highest = worst.mean - worst.half_width, success.mean + success.half_width
    return bool(lowest >= fair(rows, own) and highest <= SAFE)


def best(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the runs of each lift with each rule, with the constants that miss the two goals by
    least, points of worst group and of ASR added. Of several that reach both, take the fairest."""
    search = searched(rows)
    wanted = fair(rows, search)

    def missed(setting: pd.DataFrame) -> tuple[float, float]:
        worst, success = setting[["worst_group", "attack_success"]].mean()
        return max(0.0, wanted - worst) + max(0.0, success - SAFE), -worst

    return {
        kinds: min((own for _, own in settings(of_kinds)), key=missed)
        for kinds, of_kinds in search.groupby(["lift", "rule"], sort=False)
    }


def settings(search: pd.DataFrame) -> list[tuple[object, pd.DataFrame]]:
    """Return the runs of each lift and rule with their constants."""
    return [*search.groupby(["variant", "point"], sort=False)]


def name_of(setting: pd.DataFrame) -> str:
    """Return the name of lift and rule with their constants, as ``chosen.yaml`` has it."""
    return f"{setting['variant'].iloc[0]}-{setting['point'].iloc[0]}"


def again(rows: pd.DataFrame, setting: pd.DataFrame, point: str = "backdoor") -> pd.DataFrame:
    """Return a setting's runs on new seeds of a federation.

    Raises:
        ValueError: If ``chosen.yaml`` lacks it.
    """
    own = pages.where(rows, variant=name_of(setting), point=point)
    if own.empty:
        raise ValueError(f"chosen.yaml needs a variant {name_of(setting)}")
    return own


def counts(rows: dict[str, pd.DataFrame]) -> list[list[str]]:
    """Return how many settings reach both goals, a column per federation they were chosen on."""
    columns = {name: counted(name, rows) for name in rows}
    lines = {key: key for key in next(iter(columns.values()))}
    names = {name: f"chosen on {runs.FEDERATIONS[name]}" for name in rows}
    return pages.crossed("", lines, names, lambda line, name: str(columns[name][line]))


def counted(name: str, rows: dict[str, pd.DataFrame]) -> dict[str, int]:
    """Return how many settings, and how many lifts with rules, reach both goals."""
    here, there = rows[name], elsewhere(name, rows)[1]
    search = searched(here)
    tried, wanted = [own for _, own in settings(search)], fair(here, search)
    chosen = [*best(here).values()]
    kept = [own for own in chosen if both(here, again(here, own))]
    usual = [own for own in tried if has_usual_constants(own)]
    asked = {
        "the worst group where nobody attacks": lambda own: fair_unattacked(here, own),
        "both on the other dataset": lambda own: both(there, again(there, own)),
        "both where attackers report ten times their loss": lambda own: both(
            here, again(here, own, "high_loss")
        ),
        "both where they stand where the minority stands": lambda own: both(
            here, again(here, own, "minority_mimic")
        ),
    }
    return {
        "settings tried": len(tried),
        "settings that reach both on the three seeds": sum(reached(own, wanted) for own in tried),
        "lifts with a rule or none": len(chosen),
        "both on the three seeds, with the other pages' constants": sum(
            both(here, own) for own in usual
        ),
        "both on the three seeds, with the best": sum(both(here, own) for own in chosen),
        "both on five new seeds": len(kept),
        "of these, clearly": sum(clearly(here, again(here, own)) for own in kept),
        **{f"of these, {text}": sum(map(holds, kept)) for text, holds in asked.items()},
        "of these, all of the last four": sum(
            all(holds(own) for holds in asked.values()) for own in kept
        ),
    }


def elsewhere(name: str, rows: dict[str, pd.DataFrame]) -> tuple[str, pd.DataFrame]:
    """Return the other federation's name and runs."""
    (other,) = (pair for pair in rows.items() if pair[0] != name)
    return other


def fair_unattacked(rows: pd.DataFrame, setting: pd.DataFrame) -> bool:
    """Return whether a setting reaches the worst group on new seeds where nobody attacks."""
    own = again(rows, setting, "no_attack")
    return bool(own["worst_group"].mean() >= fair(rows, own))


def has_usual_constants(setting: pd.DataFrame) -> bool:
    """Return whether a setting has the constants of the other pages."""
    first = setting.iloc[0]
    lift, rule = LIFTS[first["lift"]], RULES[first["rule"]]
    return bool(first["lift_constants"] == lift and first["rule_constants"] == rule)


def of_best(name: str, rows: dict[str, pd.DataFrame]) -> list[list[str]]:
    """Return the results of the best of each lift with each rule: on the seeds it was chosen on, on
    new ones, where nobody attacks, under other attackers, and on the other federation."""
    here, (other, there) = rows[name], elsewhere(name, rows)
    lines = []
    for (lift, rule), setting in best(here).items():
        first, attacked = setting.iloc[0], again(here, setting)
        constants = (first["lift_constants"].replace("_", " × "), first["rule_constants"])
        found = (pages.mean(setting[column]) for column in ("worst_group", "attack_success"))
        unattacked = pages.mean_pm(again(here, setting, "no_attack")["worst_group"])
        lines.append(
            {
                "lift, rule": f"{runs.name_of(lift)}, {RULE_NAMES.get(rule, runs.name_of(rule))}",
                "constants": ", ".join(filter(None, constants)),
                "chosen by": pages.bold(" / ".join(found), both(here, setting)),
                "new seeds": outcome(here, attacked),
                "highest ASR": pages.mean_pm(attacked["attack_success_highest"]),
                "nobody attacks": pages.bold(unattacked, fair_unattacked(here, setting)),
                "ten times the loss": outcome(here, again(here, setting, "high_loss")),
                "minority-mimic": outcome(here, again(here, setting, "minority_mimic")),
                f"on {runs.FEDERATIONS[other]}": outcome(there, again(there, setting)),
            }
        )
    return pages.records(lines)


def outcome(rows: pd.DataFrame, own: pd.DataFrame) -> str:
    """Return worst group / ASR, bold where both goals are reached."""
    return pages.bold(runs.outcome(own), both(rows, own))


def of_flags(rows: pd.DataFrame) -> list[list[str]]:
    """Return worst group / ASR of JTT alone by how many clients it flags."""
    own = flagging(rows)
    told = {point: point for point in own["point"].unique()}
    columns = runs.in_each(own, FLAGGING)

    def cell(point: str, column: tuple[str, str]) -> str:
        name, variant = column
        of = pages.where(own, federation=name, variant=variant, point=point)
        return outcome(pages.where(rows, federation=name), of)

    return pages.crossed("flags; attackers report", told, columns, cell)


def flagging(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of JTT alone, whose ``point`` is how many clients it flags."""
    return rows[rows["variant"].isin(FLAGGING)]


def figure(results: Path = runs.HERE) -> Figure:
    """Draw every setting, and the best ones on new seeds; below, JTT alone by how many it flags."""
    rows = by_federation(results)
    with house_style():
        drawing = Figure(figsize=(9, 7.5), layout="constrained")
        grid = drawing.subplots(2, len(rows), sharey=True)
        for (above, below), (name, own) in zip(grid.T, rows.items(), strict=True):
            panel(above, runs.FEDERATIONS[name], fair(own, searched(own)), SAFE)
            draw_settings(above, own)
            draw_flags(below, own)
        for axes, label in zip(grid[:, 0], ("worst group, %", "JTT alone, %"), strict=True):
            axes.set_ylabel(label)
        for axes in grid[:, -1]:
            axes.legend(fontsize=8, loc="upper right")
    return drawing


def draw_settings(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw all settings as small points, and the best of each lift with each rule, on new seeds, as
    large ones."""
    search, chosen = searched(rows), best(rows)
    for place, (lift, marker) in enumerate(zip(LIFTS, "^sD", strict=True), start=1):
        style = {"marker": marker, "ls": "", "color": GROUP_COLOURS[place]}
        tried = [mean_point(own) for _, own in settings(pages.where(search, lift=lift))]
        axes.plot(*zip(*tried, strict=True), alpha=0.3, markersize=4, mew=0, **style)
        new = [mean_point(again(rows, own)) for kinds, own in chosen.items() if kinds[0] == lift]
        label = f"{runs.name_of(lift)}: best with a rule, new seeds"
        axes.plot(*zip(*new, strict=True), label=label, markersize=7, mec="black", **style)


def mean_point(own: pd.DataFrame) -> tuple[float, float]:
    """Return the coordinates of runs in the plane: their mean ASR and worst group."""
    success, worst = own[["attack_success", "worst_group"]].mean()
    return success, worst


def draw_flags(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw worst group and attack success of JTT alone over how many clients it flags."""
    own = flagging(rows)
    figures = {"worst_group": ("worst group", GROUP_COLOURS[0])}
    figures |= {"attack_success": ("ASR", GROUP_COLOURS[5])}
    for variant, style in zip(FLAGGING, ("-", ":"), strict=True):
        means = pages.where(own, variant=variant).groupby("point", sort=False)[[*figures]].mean()
        for column, (label, colour) in figures.items():
            text = f"{label}, attackers report {FLAGGING[variant]}"
            axes.plot(means.index.astype(int), means[column], style, color=colour, label=text)
    axes.set(xlabel="clients that JTT flags", ylim=(-4, 104))
