"""What attacks do, each beside the same run without it.

    fl-testbed run experiments/attacks/updates.yaml
    python experiments/attacks/table.py experiments/attacks/updates.yaml

Runs are compared seed by seed with the run that differs from them in nothing but the attack. An
untargeted attack is to cost 10 points of accuracy, a backdoor to win 50 points of attack success.
"""

import argparse
import json
import math
from pathlib import Path

import pandas as pd

from fl_testbed.report.statistics import estimate
from fl_testbed.scenario import Scenario, load_scenarios

ACCURACY_LOSS, BACKDOOR_GAIN = 0.10, 0.50  # what counts as success
ATTACKERS = ("attack", "training_attack", "schedule", "attackers")
RESULTS = Path(__file__).parent / "results.csv"


def setting_of(scenario: Scenario) -> str:
    """Return all that a scenario says but the attack: runs that share it can be compared."""
    identity = scenario.identity()
    for key in ("variant", *ATTACKERS):
        del identity[key]
    if isinstance(identity["poison"], dict):
        identity["poison"].pop("active", None)
    return json.dumps(identity, sort_keys=True)


def is_attacked(scenario: Scenario) -> bool:
    """Whether anybody sends or trains on anything else than an honest client would."""
    return scenario.clients.poisoned > 0 and any(
        kind.attack.kind != "none"
        or (kind.poison is not None and kind.poison.kind != "none" and _is_active(kind.poison))
        for kind in scenario.attacker_kinds
    )


def _is_active(poison: object) -> bool:
    return getattr(poison, "active", True)


def measured(scenarios: list[Scenario], out: Path) -> pd.DataFrame:
    """Read finished runs, one row each."""
    rows = []
    for scenario in scenarios:
        folder = out / scenario.name / scenario.variant / f"seed-{scenario.seed}"
        final = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["final"]
        rows.append(
            {
                "scenario": scenario.name,
                "variant": scenario.variant,
                "rule": scenario.strategy.aggregation.kind,
                "attackers": f"{scenario.clients.poisoned} of {len(scenario.clients.population)}",
                "setting": setting_of(scenario),
                "attacked": is_attacked(scenario),
                "accuracy": final["accuracy"],
                "worst_group": final["worst_group_accuracy"],
                "attack_success": final["attack_success_rate"],
            }
        )
    return pd.DataFrame(rows)


def compared(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per variant: its figures, and their distance to the runs without attack."""
    figures = ["accuracy", "worst_group", "attack_success"]
    without = runs[~runs["attacked"]].groupby("setting")[figures].mean()
    rows = []
    for (scenario, variant), group in runs.groupby(["scenario", "variant"], sort=False):
        base = without.reindex(group["setting"])[figures].to_numpy(dtype=float)
        change = group[figures].astype(float) - base
        row = {"scenario": scenario, "variant": variant, "n_seeds": len(group)}
        row |= group.iloc[0][["rule", "attackers", "attacked"]].to_dict()
        for name in figures:
            row[name], row[f"{name}±"], _ = estimate(group[name].to_numpy(dtype=float))
            row[f"{name}_change"], row[f"{name}_change±"], _ = estimate(change[name].to_numpy())
        lost, won = -row["accuracy_change"], row["attack_success_change"]
        row["succeeds"] = bool(lost >= ACCURACY_LOSS or won >= BACKDOOR_GAIN)
        rows.append(row)
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """Return the table for a README, in percent and points."""
    with_backdoor = table["attack_success"].notna().any()
    headings = ["variant", "rule", "attackers", "accuracy", "change", "worst group"]
    headings += ["ASR", "change"] if with_backdoor else []
    lines = [headings, ["---"] * len(headings)]
    for row in table.to_dict("records"):
        cells = [row["variant"], row["rule"], row["attackers"], _cell(row, "accuracy")]
        cells += [_change(row, "accuracy"), _cell(row, "worst_group")]
        if with_backdoor:
            cells += [_cell(row, "attack_success"), _change(row, "attack_success")]
        if row["succeeds"]:
            cells[0] = f"**{cells[0]}**"
        lines.append(cells)
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def _cell(row: dict, name: str) -> str:
    value, interval = row[name], row[f"{name}±"]
    if math.isnan(value):
        return "–"
    return f"{100 * value:.1f}" + ("" if math.isnan(interval) else f" ± {100 * interval:.1f}")


def _change(row: dict, name: str) -> str:
    value, interval = row[f"{name}_change"], row[f"{name}_change±"]
    if not row["attacked"] or math.isnan(value):
        return "–"
    return f"{100 * value:+.1f}" + ("" if math.isnan(interval) else f" ± {100 * interval:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the runs are")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--csv", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    scenarios = [
        s for path in arguments.scenarios for s in load_scenarios(path, arguments.settings)
    ]
    table = compared(measured(scenarios, arguments.out))
    print(markdown(table))
    if arguments.csv is not None:
        table.to_csv(arguments.csv, index=False, float_format="%.4g", lineterminator="\n")


if __name__ == "__main__":
    main()
