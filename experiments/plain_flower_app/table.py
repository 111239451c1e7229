"""Which clients strategies hear in a plain Flower app, where two of ten have wrong labels.

    python -m experiments.plain_flower_app.table

runs the app once with each strategy, by ``flwr run``, and writes ``results.csv``, a row per
strategy with the figures of the last round's line, and the table of the README.
"""

import re
import subprocess
from pathlib import Path

import pandas as pd

from experiments import pages

HERE = Path(__file__).parent
PAGE, RESULTS = HERE / "README.md", HERE / "results.csv"
STRATEGIES = {
    "FedAvg": "`FedAvg` (Flower's, observed)",
    "multi_krum": "`multi_krum` (ours)",
    "FedTrimmedAvg": "`FedTrimmedAvg` (Flower's, observed)",
    "agnostic": "`agnostic` (ours)",
}
N_CLIENTS, N_FLIPPED = 10, 2
LINE = re.compile(r"round +(\d+)  accuracy (\S+)  weights ([\d. ]+)  unexplained (\S+)")


def measured(strategy: str) -> dict[str, object]:
    """Run the app, and return what it prints of its last round, weights in partition order."""
    command = ["flwr", "run", str(HERE), "--stream"]
    command += ["--federation-config", f"num-supernodes={N_CLIENTS}"]
    command += ["--run-config", f'strategy="{strategy}"']
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = LINE.findall(done.stdout + done.stderr)
    if not lines:
        raise RuntimeError(f"{strategy}: no round was reported:\n{done.stdout}{done.stderr}")
    round_, accuracy, weights, unexplained = lines[-1]
    row = {"strategy": strategy, "round": round_, "accuracy": accuracy, "unexplained": unexplained}
    return row | {f"weight {i}": weight for i, weight in enumerate(weights.split())}


def tables() -> dict[str, pages.Rows]:
    """Return the table of the README, from the result file."""
    rows = [["`strategy`", "accuracy", "weights of the two with wrong labels"]]
    rows[0] += ["of the other eight", "unexplained"]
    for row in pd.read_csv(RESULTS).to_dict("records"):
        weights = [row[f"weight {i}"] for i in range(N_CLIENTS)]
        flipped, others = weights[:N_FLIPPED], [min(weights[N_FLIPPED:]), max(weights[N_FLIPPED:])]
        name, exact = STRATEGIES[row["strategy"]], pd.isna(row["unexplained"])
        ends = [pages.number(weight, 2) for weight in dict.fromkeys(others)]
        rows.append(
            [
                name,
                pages.number(row["accuracy"], 3),
                ", ".join(pages.number(weight, 2) for weight in flipped),
                " to ".join(ends),
                "weights are exact" if exact else pages.number(row["unexplained"], 3),
            ]
        )
    return {"strategies": rows}


def main() -> None:
    pd.DataFrame(map(measured, STRATEGIES)).to_csv(RESULTS, index=False, lineterminator="\n")
    pages.write(PAGE, tables())


if __name__ == "__main__":
    main()
