"""Writes the table of docs/tutorial/README.md from what ``fl-testbed compare`` says of its runs.

python -m experiments.tutorial
"""

from pathlib import Path

import pandas as pd

from experiments import pages

PAGE = Path(__file__).parents[1] / "docs" / "tutorial" / "README.md"
ROLES = ("honest_majority", "honest_minority", "poisoned")


def tables() -> dict[str, str]:
    """Return the table of the page, from the result file."""
    rows = [["variant", "worst group %", "ASR %"]]
    rows[0] += [f"weight {role.removeprefix('honest_')}" for role in ROLES]
    for row in pd.read_csv(PAGE.parent / "results.csv").to_dict("records"):
        name = f"{row['variant']} †" if row["oracle"] else row["variant"]
        shares = [
            pages.pm(100 * row[f"final.{figure}.mean"], 100 * row[f"final.{figure}.half_width"])
            for figure in ("worst_group_accuracy", "attack_success_rate")
        ]
        ratios = [pages.number(row[f"suppression.{r}.weight_ratio.mean"], 2) for r in ROLES]
        rows.append([name, *shares, *ratios])
    return {"results": pages.markdown(rows)}


if __name__ == "__main__":
    pages.write(PAGE, tables())
