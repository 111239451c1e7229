"""Published figures beside ours.

    fl-testbed run experiments/published/flanders_fashion_mnist.yaml --workers 2
    python experiments/published/table.py

FLANDERS reports the best accuracy from the round on in which attackers begin, of one run.
"""

import argparse
from pathlib import Path

import pandas as pd

from fl_testbed.scenario import load_scenarios

HERE = Path(__file__).parent
SCENARIO = HERE / "flanders_fashion_mnist.yaml"
FIRST_ROUND = 3
PUBLISHED = {
    ("mean", "no_attack"): 0.68,
    ("mean", "gaussian"): 0.25,
    ("mean", "lie"): 0.17,
    ("mean", "fang"): 0.57,
    ("mean", "min_max"): 0.11,
    ("coordinate_median", "gaussian"): 0.66,
    ("coordinate_median", "lie"): 0.65,
    ("coordinate_median", "fang"): 0.67,
    ("coordinate_median", "min_max"): 0.60,
    ("multi_krum", "no_attack"): 0.66,
}
"""Best accuracy by rule and attack, with 20 of 100 clients attacking (stored notebook of Flower's
``flanders`` baseline)."""


def measured(out: Path) -> pd.DataFrame:
    """Return one row per run: rule, attack, seed, the best accuracy and the last."""
    rows = []
    for scenario in load_scenarios(SCENARIO, []):
        folder = out / scenario.name / scenario.variant / f"seed-{scenario.seed}"
        rounds = pd.read_csv(folder / "rounds.csv")
        accuracy = rounds.loc[rounds["round"] >= FIRST_ROUND, "accuracy"]
        attack = scenario.variant.split(",")[0]
        rule = scenario.strategy.aggregation.kind
        rows.append(
            {
                "rule": rule,
                "attack": attack,
                "seed": scenario.seed,
                "best": accuracy.max(),
                "last": accuracy.iloc[-1],
                "published": PUBLISHED.get((rule, attack)),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the runs are")
    table = measured(parser.parse_args().out)
    print(table.to_string(index=False, float_format="%.2f", na_rep="–"))
    table.to_csv(
        HERE / "flanders_fashion_mnist.csv", index=False, float_format="%.4f", lineterminator="\n"
    )


if __name__ == "__main__":
    main()
