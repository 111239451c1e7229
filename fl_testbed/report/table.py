"""The comparison of variants as a terminal table."""

import math

import pandas as pd
from rich.table import Table

from clients.shard import Role
from fl_testbed.report.results import FIGURES, mean_and_interval

TITLES = {
    "accuracy": "accuracy %",
    "worst_group_accuracy": "worst group %",
    "attack_success_rate": "ASR %",
    f"weight_ratio.{Role.HONEST_MAJORITY.value}": "majority",
    f"weight_ratio.{Role.HONEST_MINORITY.value}": "minority",
    f"weight_ratio.{Role.POISONED.value}": "poisoned",
}


def comparison_table(results: pd.DataFrame, title: str) -> Table:
    """Return one row per variant: final figures, and each role's weight ratio."""
    n_seeds = results.groupby("variant")["seed"].nunique().max()
    caption = (
        "accuracy, worst group and ASR: mean of the last five evaluations\n"
        "weight ratio: share of the aggregate over fair share, below 1 silenced, above 1 amplified"
    )
    if n_seeds > 1:
        caption += f"\nmean ± 95 % interval over {n_seeds} seeds (Student's t)"
    if results["oracle"].any():
        caption += "\n† oracle: told the truth about clients"
    table = Table(title=title, caption=caption, caption_justify="left", title_justify="left")
    table.add_column("variant")
    for key, heading in TITLES.items():
        shown = heading if key in FIGURES else f"weight ratio\n{heading}"
        table.add_column(shown, justify="right", no_wrap=True)
    for variant, runs in results.groupby("variant", sort=False):
        mark = " †" if runs["oracle"].any() else ""
        cells = [_cell(*mean_and_interval(runs[key]), percent=key in FIGURES) for key in TITLES]
        table.add_row(f"{variant}{mark}", *cells)
    return table


def _cell(mean: float, half: float, *, percent: bool) -> str:
    if math.isnan(mean):
        return "–"
    scale, digits = (100, 1) if percent else (1, 2)
    text = f"{mean * scale:.{digits}f}"
    return text if math.isnan(half) else f"{text} ± {half * scale:.{digits}f}"
