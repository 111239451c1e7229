"""What a defence costs the minority: each rule beside itself with the minority shielded.

    fl-testbed run experiments/shielding/fashion.yaml
    python -m experiments.shielding.table fashion

writes ``results/fashion.csv``, a row per run, and the tables of the README. A cost is bold where
its interval excludes zero.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from experiments import pages
from fl_testbed.report.columns import WEIGHT_RATIOS
from fl_testbed.report.results import finished_runs
from fl_testbed.scenario import load_scenarios

HERE = Path(__file__).parent
PAGE, RESULTS = HERE / "README.md", HERE / "results"
WORST, ASR = "final.worst_group_accuracy", "final.attack_success_rate"
RATIOS = [column.key for column in WEIGHT_RATIOS]
SHIELDED = "_shielded"
NAMED = {
    "no_attack": "no attack",
    "mean": "mean, no defence",
    "perfect_filter": "attackers removed †",
    "worst_filter": "minority removed †",
    "multi_krum": "Multi-Krum, f = 4",
    "trimmed_mean": "trimmed mean, f = 4",
    "coordinate_median": "coordinate median",
    "norm_clipping": "clipping to the median norm",
    "fltrust": "FLTrust",
    "loss_rejection": "loss-based rejection, f = 4",
}


def measured(name: str, out: Path) -> pd.DataFrame:
    """Return one row per finished run, in the scenario's order."""
    rows = []
    for _, run in finished_runs(load_scenarios(HERE / f"{name}.yaml"), out):
        figures = {key: run.figures.get(key, np.nan) for key in (WORST, ASR, *RATIOS)}
        rows.append({"variant": run.variant, "seed": run.seed, **figures})
    return pd.DataFrame(rows)


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the README, from the result files."""
    files = {name: RESULTS / f"{name}.csv" for name in ("fashion", "adult")}
    return {name: costs(pd.read_csv(file)) for name, file in files.items()}


def costs(table: pd.DataFrame) -> list[list[str]]:
    """Return a row per rule: its result, that with the minority shielded if it was run, and the
    difference paired by seed."""
    variants = [*NAMED, *(variant + SHIELDED for variant in NAMED)]
    worst, success = (
        100 * table.pivot_table(figure, "seed", "variant").reindex(columns=variants)
        for figure in (WORST, ASR)
    )
    ratios = table.groupby("variant")[RATIOS].mean()
    return pages.records(
        {
            "rule": name,
            "worst group": pages.mean_range(worst[variant]),
            "shielded †": pages.mean_range(worst[variant + SHIELDED]),
            "cost, points": pages.difference(worst[variant + SHIELDED] - worst[variant], 1),
            "ASR": pages.mean(success[variant]),
            "ASR shielded †": pages.mean(success[variant + SHIELDED]),
            "weight majority / minority / poisoned": " / ".join(
                pages.number(ratio, 2) for ratio in ratios.loc[variant]
            ),
        }
        for variant, name in NAMED.items()
    )


def main() -> None:
    parser = pages.parser(__doc__)
    parser.add_argument("name", choices=sorted(p.stem for p in HERE.glob("*.yaml")))
    arguments = parser.parse_args()
    pages.keep(RESULTS / f"{arguments.name}.csv", measured(arguments.name, arguments.out))
    pages.write(PAGE, tables())


if __name__ == "__main__":
    main()
