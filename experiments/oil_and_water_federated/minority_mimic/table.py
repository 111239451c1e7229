"""What attackers gain who stand where honest minority clients stand."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from clients.shard import Role
from experiments import pages
from experiments.oil_and_water_federated import runs
from fl_testbed.report.figures.style import FAINT, ROLE_COLOURS, house_style

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
ATTACKERS = {
    "plain": "plain",
    "mimic": "mimic",
    "close_mimic": "mimic, half as far",
    "box_mimic": "mimic, by coordinate",
}


def tables(results: Path = runs.HERE) -> dict[str, str]:
    """Return the tables of the page."""
    found = runs.by_federation(against(results), of)
    return found | {"rules": pages.markdown(rules(runs.kept("defences", results)))}


def against(results: Path) -> pd.DataFrame:
    """Return the methods tried against every kind of attacker, with a column ``attacker``."""
    varied = runs.kept("minority_mimic", results)
    varied = varied.assign(attacker=varied["point"])
    both = runs.kept("combinations", results)
    both = both[(both["variant"] == "agnostic") & (both["point"] == "multi_krum")]
    both = both.assign(variant="agnostic_multi_krum")
    base = pd.concat([runs.base_point(results), both]).assign(attacker="plain")
    return runs.compared(base, varied)


def of(rows: pd.DataFrame) -> list[list[str]]:
    """Return worst group / ASR and the attackers' weight, by method and attacker."""
    present = {a: name for a, name in ATTACKERS.items() if a in set(rows["attacker"])}
    lines = [["worst group / ASR (attackers' weight)", *present.values()]]
    for method in rows["variant"].unique():
        cells = []
        for attacker in present:
            own = rows[(rows["variant"] == method) & (rows["attacker"] == attacker)]
            worst, success = (pages.mean_pm(own[c]) for c in ("worst_group", "attack_success"))
            cells.append(f"{worst} / {success} ({pages.mean(own['weight_poisoned'], 2)})")
        lines.append([runs.name_of(method), *cells])
    return lines


def rules(rows: pd.DataFrame) -> list[list[str]]:
    """Return how rules' suspicion and weights change when attackers mimic the minority."""
    present = [n for n in ("fashion_mnist", "adult") if n in set(rows["federation"])]
    heads = ("AUC plain", "AUC mimic", "weight minority, plain", "mimic")
    lines = [["rule", *(f"{runs.FEDERATIONS[n]}: {head}" for n in present for head in heads)]]
    for rule in rows.loc[rows["auc_suspicion"].notna(), "variant"].unique():
        cells = []
        for name in present:
            own = rows[(rows["variant"] == rule) & (rows["federation"] == name)]
            kinds = [own[own["point"] == point] for point in ("backdoor", "minority_mimic")]
            cells += [pages.mean_pm(kind["auc_suspicion"], 2) for kind in kinds]
            cells += [pages.mean(kind["weight_minority"], 2) for kind in kinds]
        lines.append([runs.name_of(rule), *cells])
    return lines


def figure(results: Path = runs.HERE) -> Figure:
    """Draw attack success and weights by attacker."""
    rows = against(results)
    present = runs.present(rows)
    methods = list(rows["variant"].unique())
    with house_style():
        drawing = Figure(figsize=(11, 5), layout="constrained")
        panels = drawing.subplots(2, len(present), sharex=True, sharey="row", squeeze=False)
        for column, name in enumerate(present):
            own = rows[rows["federation"] == name]
            for place, method in enumerate(methods):
                means = own[own["variant"] == method].groupby("attacker").mean(numeric_only=True)
                means = means.reindex([*ATTACKERS])
                xs = range(len(ATTACKERS))
                panels[0][column].plot(
                    xs, means["attack_success"], "o-", color=f"C{place}", label=runs.name_of(method)
                )
                if method == "multi_krum":
                    for role, key in (
                        (Role.HONEST_MINORITY, "weight_minority"),
                        (Role.POISONED, "weight_poisoned"),
                    ):
                        label = "minority" if role is Role.HONEST_MINORITY else "attackers"
                        panels[1][column].plot(
                            xs, means[key], "s--", color=ROLE_COLOURS[role], label=label
                        )
            panels[0][column].set(title=f"{runs.FEDERATIONS[name]}: attack success, %")
            panels[1][column].set(title="weights under Multi-Krum")
            panels[1][column].axhline(1, color=FAINT, linewidth=0.8)
            panels[1][column].set_xticks(xs, ["plain", "mimic", "close", "box"])
        labels = panels[0][0].get_legend_handles_labels()
        drawing.legend(*labels, loc="outside upper center", ncols=len(methods))
        panels[1][-1].legend(fontsize=7)
    return drawing
