"""What attacks do, each beside the same run without it.

    for name in updates stronger poisons adaptive; do
      fl-testbed run experiments/attacks/$name.yaml
    done
    python experiments/attacks/table.py

Runs are compared seed by seed with the run that differs from them in nothing but the attack. An
untargeted attack is to cost 10 points of accuracy, a backdoor to win 50 points of attack success.
Writes one CSV file per question to ``results/``, in percent and points, and prints the tables.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fl_testbed.report.statistics import estimate
from fl_testbed.scenario import Scenario, load_scenarios

HERE = Path(__file__).parent
RESULTS = HERE / "results"
AGAINST_MEAN = ("updates", "stronger", "poisons")
AIMS = {
    "accuracy": ("accuracy_change", -1, 10.0),
    "subpopulation": ("goal_accuracy_change", -1, 10.0),
    "success_rate": ("success_rate_change", 1, 50.0),
}
"""What an attack is for: the figure that it moves, which way, and how many points count."""
NON_ADAPTIVE = ("sign_flip", "gaussian", "label_flip")
KNOWS = {
    "krum": ("fang_krum", "tailored"),
    "multi_krum": ("tailored",),
    "trimmed_mean": ("fang_trimmed_mean", "tailored"),
    "coordinate_median": ("fang_trimmed_mean", "tailored"),
}
"""The attacks that were made for a rule. The others fit themselves to honest updates alone."""
FIGURES = {
    "accuracy": ("final", "accuracy"),
    "worst_group": ("final", "worst_group_accuracy"),
    "success_rate": ("attack", "attack_success_rate"),
    "flip_rate": ("attack", "flip_rate"),
    "goal_accuracy": ("attack", "accuracy"),
}


def setting_of(scenario: Scenario) -> str:
    """Return all that a scenario says but the attack: runs that share it can be compared."""
    identity = scenario.identity()
    for key in ("name", "variant", "attack", "training_attack", "schedule", "attackers"):
        del identity[key]
    if is_untargeted_flip(identity["poison"]):
        identity["poison"] = {"kind": "none"}  # nobody's data depend on it but attackers' own
    return json.dumps(identity, sort_keys=True)


def is_untargeted_flip(poison: dict) -> bool:
    """Whether a poison confuses all classes."""
    return poison["kind"] == "label_flip" and poison["relabel"]["kind"] != "pairwise"


def is_attacked(scenario: Scenario) -> bool:
    """Whether anybody sends or trains on anything else than an honest client would."""
    return any(
        kind.schedule.first != "never"
        and (kind.attack.kind != "none" or (kind.poison and kind.poison.kind != "none"))
        for kind in scenario.attacker_kinds
    )


def aim_of(scenario: Scenario) -> str:
    """Return what the attack is for, as a key of ``AIMS``."""
    if scenario.poison.kind == "none" or is_untargeted_flip(scenario.identity()["poison"]):
        return "accuracy"
    return "subpopulation" if scenario.poison.kind == "subpopulation" else "success_rate"


def measured(scenarios: Iterable[Scenario], out: Path) -> pd.DataFrame:
    """Read finished runs, one row each; figures in percent."""
    rows = []
    for scenario in scenarios:
        folder = out / scenario.name / scenario.variant / f"seed-{scenario.seed}"
        if not (folder / "summary.json").exists():
            print(f"not there: {folder}")
            continue
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        summary["attack"] = next(iter(summary["attacks"].values()), {})
        row = {
            "scenario": scenario.name,
            "variant": scenario.variant.partition(",")[0],
            "rule": scenario.strategy.aggregation.kind,
            "attackers": f"{scenario.clients.poisoned} of {len(scenario.clients.population)}",
            "seed": scenario.seed,
            "setting": setting_of(scenario),
            "attacked": is_attacked(scenario),
            "aim": aim_of(scenario),
        }
        for name, (part, key) in FIGURES.items():
            value = summary[part].get(key)
            row[name] = float("nan") if value is None else 100 * value
        rows.append(row)
    return pd.DataFrame(rows)


def with_changes(runs: pd.DataFrame) -> pd.DataFrame:
    """Add each figure's distance to the run without attack: columns ending in ``_change``."""
    without = runs[~runs["attacked"]].drop_duplicates("setting").set_index("setting")
    runs = runs.copy()
    for name in FIGURES:
        runs[f"{name}_change"] = runs[name] - runs["setting"].map(without[name])
    return runs


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per variant and rule, with means and half-widths of 95 % intervals."""
    rows = []
    for (scenario, variant, rule), group in runs.groupby(
        ["scenario", "variant", "rule"], sort=False
    ):
        row = {"scenario": scenario, "variant": variant, "rule": rule, "n_seeds": len(group)}
        row |= group.iloc[0][["attackers", "attacked", "aim"]].to_dict()
        for name in FIGURES:
            for column in (name, f"{name}_change"):
                found = estimate(group[column].to_numpy(dtype=float))
                row[column], row[f"{column}±"] = found.mean, found.half_width
        column, sign, least = AIMS[row["aim"]]
        row["succeeds"] = bool(sign * row[column] >= least)
        rows.append(row)
    return pd.DataFrame(rows)


def against_the_best_plain(runs: pd.DataFrame) -> pd.DataFrame:
    """Return how much more accuracy each adaptive attack costs a rule than the strongest
    non-adaptive one, seed by seed; positive: it is stronger."""
    rows = []
    for (scenario, rule), own in runs[runs["attacked"]].groupby(["scenario", "rule"], sort=False):
        loss = -own.pivot_table("accuracy_change", "seed", "variant", sort=False)
        strongest = loss[list(NON_ADAPTIVE)].mean().idxmax()
        for variant in loss.columns.drop(list(NON_ADAPTIVE)):
            found = estimate((loss[variant] - loss[strongest]).to_numpy(dtype=float))
            rows.append(
                {
                    "scenario": scenario,
                    "rule": rule,
                    "attack": variant,
                    "made_for_it": variant.startswith(KNOWS[rule]),
                    "accuracy_loss": loss[variant].mean(),
                    "strongest_non_adaptive": strongest,
                    "its_accuracy_loss": loss[strongest].mean(),
                    "difference": found.mean,
                    "difference±": found.half_width,
                }
            )
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """Return the attacks of a summary as a table for the README."""
    targeted = bool(table["success_rate"].notna().any())
    headings = ["attack", "attackers", "accuracy lost", "worst group lost"]
    if targeted:
        headings += ["success without attack", "success", "won", "accuracy on its goal lost"]
    lines = [headings, ["---"] * len(headings)]
    for row in table[table["attacked"]].to_dict("records"):
        name = f"**{row['variant']}**" if row["succeeds"] else row["variant"]
        cells = [name, row["attackers"], _cell(row, "accuracy_change", -1)]
        cells += [_cell(row, "worst_group_change", -1)]
        if targeted:
            cells += [_number(row["success_rate"] - row["success_rate_change"])]
            cells += [_cell(row, "success_rate"), _cell(row, "success_rate_change")]
            cells += [_cell(row, "goal_accuracy_change", -1)]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def by_rule(table: pd.DataFrame) -> str:
    """Return the accuracy that each attack costs each rule."""
    rules = list(dict.fromkeys(table["rule"]))
    lines = [["attack", *rules], ["---"] * (1 + len(rules))]
    for variant, group in table[table["attacked"]].groupby("variant", sort=False):
        rows = {row["rule"]: row for row in group.to_dict("records")}
        cells = [_cell(rows[r], "accuracy_change", -1) if r in rows else "–" for r in rules]
        lines.append([variant, *cells])
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def _cell(row: dict, name: str, sign: int = 1) -> str:
    if pd.isna(row[name]):
        return "–"
    half = row[f"{name}±"]
    return _number(sign * row[name]) + ("" if pd.isna(half) else f" ± {half:.1f}")


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the runs are")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    arguments = parser.parse_args()

    def runs_of(*names: str) -> pd.DataFrame:
        loaded = [load_scenarios(HERE / f"{name}.yaml", arguments.settings) for name in names]
        return measured([scenario for scenarios in loaded for scenario in scenarios], arguments.out)

    table = summary(with_changes(runs_of(*AGAINST_MEAN)))
    _write(table, "against_mean.csv")
    for _, part in table.groupby("scenario", sort=False):
        print(f"\n{markdown(part)}")
    runs = with_changes(runs_of("adaptive"))
    table, compared = summary(runs), against_the_best_plain(runs)
    _write(table, "adaptive.csv")
    _write(compared, "adaptive_against_plain.csv")
    for _, part in table.groupby("scenario", sort=False):
        print(f"\n{by_rule(part)}")
    made_for_it = compared[compared["made_for_it"]].drop(columns=["scenario", "made_for_it"])
    print(f"\n{made_for_it.to_string(index=False, float_format='{:.1f}'.format)}")


def _write(table: pd.DataFrame, name: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / name, index=False, float_format="%.1f", lineterminator="\n")


if __name__ == "__main__":
    main()
