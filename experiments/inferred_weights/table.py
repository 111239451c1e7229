"""How far weights inferred from outside are from those that rules report.

    fl-testbed run experiments/inferred_weights/scenario.yaml
    python experiments/inferred_weights/table.py

writes ``results.csv``, a row per pair, and prints the table of the README.
"""

from pathlib import Path

import pandas as pd

from clients.shard import Role
from fl_testbed import api

HERE = Path(__file__).parent
PAIRS = {  # the rule that reports : the strategy that is watched
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
    table = pd.DataFrame(rows).set_index("ours")
    table.to_csv(HERE / "results.csv", float_format="%.4g")
    print("| " + " | ".join(["ours", *table]) + " |\n" + "|---" * (1 + table.shape[1]) + "|")
    for ours, row in table.iterrows():
        cells = [f"{v:.2g}" if isinstance(v, float) else f"`{v}`" for v in row]
        print(f"| `{ours}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
