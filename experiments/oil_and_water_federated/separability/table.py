"""Can a score tell attackers from honest minority clients, and what does this depend on?"""

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


def tables(results: Path = runs.HERE) -> dict[str, pages.Rows]:
    """Return the tables of the page."""
    scores = by_setting(results)
    return {
        "everywhere": everywhere(results),
        "settings": of_settings(scores),
        "assumed": of_assumed(assumed(results)),
    }


def everywhere(results: Path) -> list[list[str]]:
    """Return every score's AUC on each federation, in the setting of the other questions."""
    rows = runs.base_point(results)
    scores = scores_of(rows.assign(setting="as_elsewhere", rule=rows["variant"]))
    return pages.crossed(
        "score",
        {score: score for score in scores["score"]},
        runs.federations(scores),
        lambda score, name: auc(pages.where(scores, score=score, federation=name)["auc"]),
    )


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
    """Return an AUC over seeds ± half its interval; bold where attackers look more normal."""
    return pages.bold(pages.mean_pm(values, 2), bool(values.mean() < 0.5))


def of_settings(scores: pd.DataFrame) -> list[list[str]]:
    """Return AUCs by score, for every federation and setting."""

    def cell(score: str, at: tuple[str, str]) -> str:
        return auc(pages.where(scores, score=score, federation=at[0], setting=at[1])["auc"])

    return pages.crossed("score", varied(scores), runs.in_each(scores, SETTINGS), cell)


def varied(scores: pd.DataFrame) -> dict[str, str]:
    """Return the scores that were computed in every setting, as rows of a table."""
    return {score: score for score in scores.loc[scores["setting"] != "as_elsewhere", "score"]}


def assumed(results: Path) -> pd.DataFrame:
    """Return the runs of rules that are told of 1, 2, 4 or 8 attackers, with this number in a
    column ``told``; there really are two."""
    varied = runs.kept("separability", results)
    varied = varied[~varied["variant"].isin([*SETTINGS])]
    varied = varied.assign(told=pd.to_numeric(varied["point"]))
    return runs.compared(runs.base_point(results).assign(told=4), varied)


def of_assumed(rows: pd.DataFrame) -> list[list[str]]:
    """Return worst group and weights by how many attackers a rule is told of."""
    told = {f: f"told {f:.0f}" for f in sorted(rows["told"].unique())}
    pairs = rows[["federation", "variant"]].drop_duplicates().itertuples(index=False, name=None)
    lines = {
        (name, rule): f"{runs.FEDERATIONS[name]}, {runs.name_of(rule)}" for name, rule in pairs
    }

    def cell(of: tuple[str, str], f: float) -> str:
        own = pages.where(rows, federation=of[0], variant=of[1], told=f)
        return f"{pages.mean_pm(own['worst_group'])}; {runs.weights(own)}"

    return pages.crossed("worst group; weight minority / attackers", lines, told, cell)


def figure(results: Path = runs.HERE) -> Figure:
    """Draw AUC by score and setting, and the minority's weight by how many attackers rules are told
    of."""
    scores, told = by_setting(results), assumed(results)
    names = [*varied(scores)][::-1]
    present = runs.present(scores)
    order = ("minority_2", "as_elsewhere", "minority_8", "poison_like_minority")
    with house_style():
        drawing = Figure(figsize=(11, 5), layout="constrained")
        panels = drawing.subplots(1, len(present) + 1, width_ratios=[2] * len(present) + [1.6])
        for axes, name in zip(panels[:-1], present, strict=True):
            for place, setting in enumerate(order):
                own = pages.where(scores, federation=name, setting=setting)
                means = own.groupby("score")["auc"].mean()
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
        own = pages.where(told, federation=present[0])
        for place, (rule, label) in enumerate(runs.named(own["variant"]).items()):
            means = pages.where(own, variant=rule).groupby("told")["weight_minority"].mean()
            panels[-1].plot(means.index, means, "o-", color=GROUP_COLOURS[place], label=label)
        panels[-1].set(
            title="what a rule is told",
            xlabel="assumed attackers (there are 2)",
            ylabel="weight of the minority (Fashion-MNIST)",
        )
        panels[-1].set_xticks(sorted(told["told"].unique()))
        panels[-1].legend(fontsize=8, loc="upper right", bbox_to_anchor=(1.0, 0.8))
    return drawing
