"""How far weights that are inferred from outside lie from those that rules report.

    fl-testbed run experiments/inferred_weights/scenario.yaml
    python -m experiments.inferred_weights.table

writes ``results.csv``, a row per pair, and the table of the README.
"""

from pathlib import Path

import pandas as pd

from clients.shard import Role
from experiments import pages
from fl_testbed import api

HERE = Path(__file__).parent
PAGE, RESULTS = HERE / "README.md", HERE / "results.csv"
PAIRS = {  # the rule that reports its weights : the strategy whose weights are inferred
    "mean": "FedAvg",
    "krum": "Krum",
    "multi_krum": "MultiKrum",
    "norm_clipping": "clipping",
    "bulyan": "Bulyan",
    "trimmed_mean": "FedTrimmedAvg",
    "median": "FedMedian",
}


def weight_ratio(clients: pd.DataFrame, role: Role) -> float:
    """Return a role's share of the aggregate over its fair share, over all rounds."""
    own = clients[clients["role"] == role.value]
    return own["weight"].sum() / own["prior_weight"].sum()


def tables() -> dict[str, pages.Rows]:
    """Return the table of the README, from the result file."""
    heading = ["ours", "watched", "unexplained", "largest deviation", "mean deviation"]
    heading += ["minority's weight ratio: exact", "inferred", "attacker's: exact", "inferred"]
    rows = [heading]
    for row in pd.read_csv(RESULTS).itertuples(index=False):
        rows.append([f"`{cell}`" if isinstance(cell, str) else f"{cell:.2g}" for cell in row])
    return {"weights": rows}


def main() -> None:
    results = api.load_results("runs/inferred_weights")
    clients = dict(list(results.clients.groupby("variant")))
    residuals = results.rounds.groupby("variant")["weight_residual"]
    rows = []
    for ours, theirs in PAIRS.items():
        exact, inferred = (clients[name].reset_index() for name in (ours, theirs))
        deviation = (exact["weight"] - inferred["weight"]).abs()
        row = {
            "ours": ours,
            "watched": theirs,
            "unexplained": residuals.mean()[theirs],
            "largest deviation": deviation.max(),
            "mean deviation": deviation.mean(),
        }
        for role in (Role.HONEST_MINORITY, Role.POISONED):
            row[f"{role.value}, exact"] = weight_ratio(exact, role)
            row[f"{role.value}, inferred"] = weight_ratio(inferred, role)
        rows.append(row)
    pages.keep(RESULTS, pd.DataFrame(rows))
    pages.write(PAGE, tables())


if __name__ == "__main__":
    main()
