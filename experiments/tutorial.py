"""The tables of docs/tutorial/README.md from the results of its runs."""

from pathlib import Path

import pandas as pd

from experiments import pages
from experiments.oil_and_water_federated import yours
from fl_testbed.metrics import read_table
from fl_testbed.report.columns import WEIGHT_RATIOS

PAGE = Path(__file__).parents[1] / "docs" / "tutorial" / "README.md"


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the page, from the result files."""
    rows = [["variant", "worst group %", "ASR %", *(ratio.title for ratio in WEIGHT_RATIOS)]]
    for row in pd.read_csv(PAGE.parent / "results.csv").to_dict("records"):
        name = f"{row['variant']} †" if row["oracle"] else row["variant"]
        shares = [
            pages.pm(100 * row[f"final.{figure}.mean"], 100 * row[f"final.{figure}.half_width"])
            for figure in ("worst_group_accuracy", "attack_success_rate")
        ]
        ratios = [pages.number(row[f"{ratio.key}.mean"], 2) for ratio in WEIGHT_RATIOS]
        rows.append([name, *shares, *ratios])
    return {"results": rows, "beside_others": beside_others()}


def beside_others() -> list[list[str]]:
    """Return the rule beside the methods of experiments/oil_and_water_federated, on one dataset."""
    others = yours.known().query("federation == 'fashion_mnist'")
    return yours.beside_others(read_table(PAGE.parent / "beside_others.csv"), others)
