"""Can a score tell attackers from honest minority clients? By what, and on what it depends."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments import pages
from experiments.oil_and_water_federated import runs
from fl_testbed.report.figures.style import FAINT, GROUP_COLOURS, house_style

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
SETTINGS = {
    "as_elsewhere": "4 minority clients",
    "minority_2": "2",
    "minority_8": "8",
    "poison_like_minority": "4, poison like theirs",
}
CLIENT_SCORES = {"auc_loss": "training loss", "auc_norm": "norm of the update"}


def tables(results: Path = runs.HERE) -> dict[str, str]:
    """Return the tables of the page."""
    scores = by_setting(results)
    return {
        "everywhere": pages.markdown(everywhere(results)),
        "settings": pages.markdown(of_settings(scores)),
        "assumed": pages.markdown(of_assumed(assumed(results))),
    }


def everywhere(results: Path) -> list[list[str]]:
    """Return every score's AUC on each federation, in the setting of the other questions."""
    rows = runs.base_point(results)
    scores = scores_of(rows.assign(setting="as_elsewhere", rule=rows["variant"]))
    present = runs.present(scores)
    lines = [["score", *(runs.FEDERATIONS[name] for name in present)]]
    for score in scores["score"].unique():
        own = scores[scores["score"] == score]
        lines.append([score, *(auc(own[own["federation"] == name]["auc"]) for name in present)])
    return lines


def by_setting(results: Path) -> pd.DataFrame:
    """Return every score's AUC by setting, federation and seed."""
    base, varied = runs.base_point(results), runs.kept("separability", results)
    varied = varied[varied["variant"].isin([*SETTINGS])]
    base = base.assign(setting="as_elsewhere", rule=base["variant"])
    base = base[base["federation"].isin(varied["federation"])]
    varied = varied.assign(setting=varied["variant"], rule=varied["point"])
    return scores_of(pd.concat([base, varied[varied["rule"].notna()]], ignore_index=True))


def scores_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the AUC of each rule's suspicion, and of loss and norm under the mean, by run."""
    keys = ["federation", "setting", "seed", "score", "auc"]
    suspected = rows[rows["auc_suspicion"].notna()]
    names = suspected["rule"].map(lambda rule: f"suspicion of {runs.name_of(rule)}")
    parts = [suspected.assign(score=names, auc=suspected["auc_suspicion"])]
    plain = rows[rows["rule"] == "mean"]
    parts = [plain.assign(score=n, auc=plain[c]) for c, n in CLIENT_SCORES.items()] + parts
    return pd.concat(parts, ignore_index=True)[keys]


def auc(values: pd.Series) -> str:
    """Return an AUC over seeds ± half its interval; bold where attackers look the more normal."""
    return pages.bold(pages.mean_pm(values, 2), bool(values.mean() < 0.5))


def of_settings(scores: pd.DataFrame) -> list[list[str]]:
    """Return AUCs by score, for every federation and setting."""
    present = runs.present(scores)
    columns = [(name, setting) for name in present for setting in SETTINGS]
    lines = [["score", *(f"{runs.FEDERATIONS[n]}: {SETTINGS[s]}" for n, s in columns)]]
    varied = scores[scores["setting"] != "as_elsewhere"]["score"].unique()
    for score in varied:
        own = scores[scores["score"] == score]
        cells = [own[(own["federation"] == n) & (own["setting"] == s)]["auc"] for n, s in columns]
        lines.append([score, *(auc(cell) for cell in cells)])
    return lines


def assumed(results: Path) -> pd.DataFrame:
    """Return rules that are told 1, 2, 4 or 8 attackers, as a column ``told``; there are two."""
    varied = runs.kept("separability", results)
    varied = varied[~varied["variant"].isin([*SETTINGS])]
    varied = varied.assign(told=pd.to_numeric(varied["point"]))
    return runs.compared(runs.base_point(results).assign(told=4), varied)


def of_assumed(rows: pd.DataFrame) -> list[list[str]]:
    """Return worst group and weights by what a rule is told."""
    told = sorted(rows["told"].unique())
    lines = [["worst group; weight minority / attackers", *(f"told {f:.0f}" for f in told)]]
    for (name, rule), own in rows.groupby(["federation", "variant"], sort=False):
        cells = []
        for f in told:
            there = own[own["told"] == f]
            cells.append(f"{pages.mean_pm(there['worst_group'])}; {runs.weights(there)}")
        lines.append([f"{runs.FEDERATIONS[str(name)]}, {runs.name_of(str(rule))}", *cells])
    return lines


def figure(results: Path = runs.HERE) -> Figure:
    """Draw AUC by score and setting, and the minority's weight by what rules are told."""
    scores, told = by_setting(results), assumed(results)
    names = list(scores[scores["setting"] != "as_elsewhere"]["score"].unique())[::-1]
    present = runs.present(scores)
    order = ("minority_2", "as_elsewhere", "minority_8", "poison_like_minority")
    with house_style():
        drawing = Figure(figsize=(11, 5), layout="constrained")
        panels = drawing.subplots(1, len(present) + 1, width_ratios=[2] * len(present) + [1.6])
        for axes, name in zip(panels[:-1], present, strict=True):
            own = scores[scores["federation"] == name]
            for place, setting in enumerate(order):
                means = own[own["setting"] == setting].groupby("score")["auc"].mean()
                heights = [y + 0.14 * (1.5 - place) for y in range(len(names))]
                style = "D" if setting == "poison_like_minority" else "o"
                label = SETTINGS[setting].removesuffix(" minority clients")
                colour = GROUP_COLOURS[place]
                axes.plot(means.reindex(names), heights, style, ms=5, color=colour, label=label)
            axes.axvline(0.5, color=FAINT, linewidth=0.8)
            axes.set(title=runs.FEDERATIONS[name], xlabel="AUC: attackers above minority")
            axes.set(xlim=(-0.05, 1.05))
            axes.set_yticks(range(len(names)), names if name == present[0] else [])
            axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.5)
        drawing.legend(
            *panels[0].get_legend_handles_labels(),
            title="minority clients",
            loc="outside lower left",
            ncols=len(order),
        )
        own = told[told["federation"] == present[0]]
        for place, rule in enumerate(own["variant"].unique()):
            means = own[own["variant"] == rule].groupby("told")["weight_minority"].mean()
            label = runs.name_of(rule)
            panels[-1].plot(means.index, means, "o-", color=GROUP_COLOURS[place], label=label)
        panels[-1].set(title="what a rule is told")
        panels[-1].set(
            xlabel="assumed attackers (there are 2)",
            ylabel="weight of the minority (Fashion-MNIST)",
        )
        panels[-1].set_xticks(sorted(told["told"].unique()))
        panels[-1].legend(fontsize=8, loc="upper right", bbox_to_anchor=(1.0, 0.8))
    return drawing
