"""The tables of docs/comparing.md: a replay, and what large sweeps cost."""

from pathlib import Path

import pandas as pd

from experiments import pages
from experiments.benchmarks.measure import latest
from fl_testbed.report.columns import WEIGHT_RATIOS

PAGE = Path(__file__).parents[1] / "docs" / "comparing.md"
RUNS = {
    "recorded": "Multi-Krum on the updates that clients sent under the mean",
    "defence_by_attack": "Multi-Krum in its own runs",
}


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the page, from the result files."""
    replay = [["", *(ratio.title for ratio in WEIGHT_RATIOS)]]
    for row in pd.read_csv(PAGE.parent / "comparing" / "replay.csv").to_dict("records"):
        keys = [ratio.key for ratio in WEIGHT_RATIOS]
        cells = (pages.pm(row[f"{key}.mean"], row[f"{key}.half_width"], 2) for key in keys)
        replay.append([RUNS[row["name"]], *cells])
    found = latest("reports")
    size = [
        ["what", "takes"],
        [
            "`compare` on 1,000 run folders",
            f"{found['1000 run folders', 'fl-testbed compare']:.1f} s",
        ],
        ["`report` of 200 runs", f"{found['200 runs', 'fl-testbed report']:.0f} s"],
        ["its page", f"{found['200 runs', 'size of report.html']:.1f} MB"],
        [
            "the page, loaded and painted by headless Chromium",
            f"{found['200 runs', 'report.html opened']:.1f} s",
        ],
    ]
    return {"replay": replay, "size": size}
