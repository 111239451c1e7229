"""What attackers gain by sending updates that lie where honest minority clients' lie."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from clients.shard import Role
from experiments import pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.directions.measure import shown
from fl_testbed.report.figures.style import FAINT, ROLE_COLOURS, house_style, role_name

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
ATTACKERS = {
    "plain": "plain",
    "mimic": "mimic",
    "close_mimic": "mimic, half as far",
    "box_mimic": "mimic, by coordinate",
}
DIRECTIONS = {
    (f"mimics_{name}", "multi_krum,attackers=mimic"): runs.FEDERATIONS[name]
    for name in runs.SUFFERING
}
ROOM = {
    "cosine": "cosine of the poison with the way to the minority",
    "distance": "how far the minority is",
}
"""Where mimics' poison points and the room that the minority leaves it: rows and columns."""
WEIGHTS = {Role.HONEST_MINORITY: "weight_minority", Role.POISONED: "weight_poisoned"}


def tables(results: Path = runs.HERE) -> dict[str, pages.Rows]:
    """Return the tables of the page."""
    found = runs.by_federation(against(results), of)
    found |= {"rules": rules(runs.kept("defences", results))}
    return found | shown("directions", DIRECTIONS, ROOM, results, digits=2)


def against(results: Path) -> pd.DataFrame:
    """Return the methods tried against every kind of attacker, with a column ``attacker``."""
    varied = runs.kept("minority_mimic", results)
    varied = varied.assign(attacker=varied["point"])
    both = runs.kept("combinations", results)
    named = [
        pages.where(both, variant=lift, point=rule).assign(variant=name)
        for name, (lift, rule) in runs.COMBINED.items()
    ]
    base = pd.concat([runs.base_point(results), *named]).assign(attacker="plain")
    return runs.compared(base, varied)


def of(rows: pd.DataFrame) -> list[list[str]]:
    """Return worst group / ASR and the attackers' weight, by method and attacker."""
    present = {a: name for a, name in ATTACKERS.items() if a in set(rows["attacker"])}

    def cell(method: str, attacker: str) -> str:
        own = pages.where(rows, variant=method, attacker=attacker)
        return f"{runs.outcome(own)} ({pages.mean(own['weight_poisoned'], 2)})"

    heading = "worst group / ASR (attackers' weight)"
    return pages.crossed(heading, runs.named(rows["variant"]), present, cell)


def rules(rows: pd.DataFrame) -> list[list[str]]:
    """Return how rules' suspicion and weights change when attackers mimic the minority."""
    present = runs.federations(rows, runs.SUFFERING)
    heads = ("AUC plain", "AUC mimic", "weight minority, plain", "mimic")
    lines = [["rule", *(f"{title}: {head}" for title in present.values() for head in heads)]]
    for rule in rows.loc[rows["auc_suspicion"].notna(), "variant"].unique():
        cells = []
        for name in present:
            own = pages.where(rows, variant=rule, federation=name)
            kinds = [pages.where(own, point=point) for point in ("backdoor", "minority_mimic")]
            cells += [pages.mean_pm(kind["auc_suspicion"], 2) for kind in kinds]
            cells += [pages.mean(kind["weight_minority"], 2) for kind in kinds]
        lines.append([runs.name_of(rule), *cells])
    return lines


def figure(results: Path = runs.HERE) -> Figure:
    """Draw attack success and weights by attacker."""
    rows = against(results)
    methods = list(rows["variant"].unique())
    tried = {
        name: [a for a in ATTACKERS if a in set(pages.where(rows, federation=name)["attacker"])]
        for name in runs.present(rows)
    }
    with house_style():
        drawing = Figure(figsize=(11, 5.6), layout="constrained")
        panels = drawing.subplots(
            2,
            len(tried),
            sharex="col",
            sharey="row",
            squeeze=False,
            width_ratios=[*map(len, tried.values())],
        )
        for (name, attackers), (above, below) in zip(tried.items(), panels.T, strict=True):
            xs = range(len(attackers))
            for place, method in enumerate(methods):
                own = pages.where(rows, federation=name, variant=method)
                means = own.groupby("attacker").mean(numeric_only=True).reindex(attackers)
                style = {"marker": runs.MARKERS[place], "color": runs.COLOURS[place]}
                if method.endswith("_ideal"):  # hollow and dotted, to show the markers below it
                    style |= {"color": FAINT, "mfc": "none", "linestyle": ":"}
                label = runs.name_of(method)
                above.plot(xs, means["attack_success"], label=label, **style)
                if method == "multi_krum":
                    for role, key in WEIGHTS.items():
                        label = role_name(role) if role is Role.HONEST_MINORITY else "attackers"
                        colour = ROLE_COLOURS[role]
                        below.plot(xs, means[key], "o--", mfc="none", color=colour, label=label)
            above.set_title(runs.FEDERATIONS[name])
            below.axhline(1, color=FAINT, linewidth=0.8)
            below.set_xticks(xs, [ATTACKERS[a].replace(", ", ",\n") for a in attackers])
            below.set_xlim(-0.3, len(xs) - 0.7)
        panels[0][0].set_ylabel("attack success, %")
        panels[1][0].set_ylabel("weight under Multi-Krum\nover fair share")
        labels = panels[0][0].get_legend_handles_labels()
        drawing.legend(*labels, loc="outside upper center", ncols=(len(methods) + 1) // 2)
        labels = panels[1][0].get_legend_handles_labels()
        drawing.legend(*labels, loc="outside lower center", ncols=2, title="in the lower row")
    return drawing
