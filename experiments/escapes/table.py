"""Which methods escape the tension, and under which attackers.

    fl-testbed run experiments/escapes/*.yaml
    python -m experiments.escapes.table

writes the CSV files, a row per run, and the README's tables. A method is bold where it serves the
worst group as the ideal lift does (within 5 points; inside clients: at least 5 points above the
mean) and its attack success is at most 5.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from experiments import pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.combinations.table import FAIR, SAFE, judged, reached
from fl_testbed.metrics import read_table
from fl_testbed.report.results import finished_runs
from fl_testbed.scenario import load_scenarios

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
FILES = {
    "fashion": ("fashion", "fashion_unattacked"),
    "adult": ("adult", "adult_unattacked"),
    "fashion_settings": ("fashion_settings", "fashion_cnn"),
    "adult_settings": ("adult_settings",),
    "fashion_attackers": ("fashion_attackers",),
    "adult_attackers": ("adult_attackers",),
    "inside_clients": ("inside_clients",),
    "fashion_seeds": ("fashion_seeds",),
    "adult_seeds": ("adult_seeds",),
    "fashion_attackers_seeds": ("fashion_attackers_seeds",),
    "adult_attackers_seeds": ("adult_attackers_seeds",),
    "fashion_epochs_seeds": ("fashion_epochs_seeds",),
}
"""Result files, and the scenario files whose runs are in them."""
SHARES = ("worst_group", "attack_success", "attack_success_highest")
COLUMNS = {name: runs.FIGURES[name] for name in (*SHARES, "weight_minority", "weight_poisoned")}
COLUMNS["personal_minority"] = "personal.honest_minority.accuracy"
DATASETS = {"fashion": "Fashion-MNIST", "adult": "Adult"}
"""Result files with runs under all kinds of attackers and under none."""
AT_HIGHEST = (
    *("mean", "jtt", "fltrust_balanced", "rejection_balanced"),
    *("jtt_fltrust_balanced", "jtt_rejection_balanced"),
)
WEIGHTS = "weight minority / poisoned"
SETTINGS = {
    "none": "plain",
    "minority_mimic": "minority-mimic",
    "nobody": "nobody attacks",
    "1.0": "own clients",
    "0.0": "spread",
    "as_it_is": "as it is",
    "epochs": "3 epochs",
    "dirichlet": "classes uneven",
    "attackers": "4 attackers",
    "cnn": "CNN",
    "little_poison": "a tenth of their examples poisoned",
    "much_poison": "eight tenths",
    "long_training": "five epochs of training",
    "boosted": "updates doubled",
    "far_boosted": "updates five times as long",
    "late": "from round 25 on",
    "short": "updates kept short (PGD)",
    "low_loss": "a tenth of their loss reported",
    "high_loss": "ten times their loss reported",
    "close_mimic": "minority-mimic, half as far",
    "mimic_much_poison": "minority-mimic, eight tenths poisoned",
    "min_max": "no backdoor: Min-Max",
    "sign_flip": "no backdoor: sign flip",
}
"""Settings as the page calls them: who attacks, where the minority is, or what else differs."""


def measured(name: str, out: Path) -> pd.DataFrame:
    """Return one row per finished run, in the scenarios' order; shares in percent."""
    scenarios = [s for file in FILES[name] for s in load_scenarios(HERE / f"{file}.yaml")]
    rows = []
    for _, run in finished_runs(scenarios, out):
        method, setting = runs.placed(run.variant)
        if method in SETTINGS:  # strategies are swept, and variants are settings
            method, setting = setting, method
        row = {"method": method, "setting": setting or "nobody", "seed": run.seed}
        row |= {column: run.figures.get(key) for column, key in COLUMNS.items()}
        rows.append({**row, "oracle": bool(run.figures["oracle"])})
    table = pd.DataFrame(rows)
    shares = [*SHARES, "personal_minority"]
    table[shares] = 100 * table[shares].astype(float)
    return table.dropna(axis="columns", how="all")


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the README, from the result files."""
    read = {name: read_table(HERE / f"{name}.csv") for name in FILES}
    new = {name: read.pop(f"{name}_seeds") for name in DATASETS}
    chosen = {name: read.pop(f"{name}_attackers_seeds") for name in DATASETS}
    trained = {"fashion": read.pop("fashion_epochs_seeds")}
    found = {
        name: by_setting(table) if name.endswith("_attackers") else by_method(table)
        for name, table in read.items()
    }
    found["highest"] = highest({name: read[name] for name in DATASETS})
    found |= {"seeds": by_seed(new), "epochs_seeds": by_seed(trained)}
    return found | {"attackers_seeds": by_attacker(chosen, new)}


def named(table: pd.DataFrame) -> dict[str, str]:
    """Return the methods with their names for readers: oracles are marked."""
    oracles = table.groupby("method", sort=False)["oracle"].any()
    return {str(method): f"{method} †" if told else str(method) for method, told in oracles.items()}


def outcome(own: pd.DataFrame, fair: float) -> str:
    """Return worst group / attack success, bold where a method that is no oracle escapes."""
    return pages.bold(runs.outcome(own), not own["oracle"].any() and reached(own, fair))


def by_method(table: pd.DataFrame) -> list[list[str]]:
    """Return a row per method: worst group / attack success by setting, weights in the first."""
    settings = {setting: SETTINGS[str(setting)] for setting in table["setting"]}
    first, *_ = settings
    means = table.groupby(["setting", "method"])["worst_group"].mean()

    def cell(method: str, setting: object) -> str:
        if setting == WEIGHTS:
            return runs.weights(pages.where(table, method=method, setting=first))
        of = means[setting]
        fair = of["jtt_ideal"] - FAIR if "jtt_ideal" in of else of["mean"] + FAIR
        return outcome(pages.where(table, method=method, setting=setting), fair)

    columns = settings | {WEIGHTS: f"{settings[first]}: {WEIGHTS}"}
    return pages.crossed("worst group / ASR", named(table), columns, cell)


def by_setting(table: pd.DataFrame) -> list[list[str]]:
    """Return a row per setting: worst group / attack success by method."""
    lifted = pages.where(table, method="jtt_ideal", setting="as_it_is")
    fair = lifted["worst_group"].mean() - FAIR

    def cell(setting: str, method: str) -> str:
        return outcome(pages.where(table, setting=setting, method=method), fair)

    settings = {setting: SETTINGS[setting] for setting in table["setting"]}
    return pages.crossed("attackers", settings, named(table), cell)


def highest(read: Mapping[str, pd.DataFrame]) -> list[list[str]]:
    """Return ASR over the five rounds in which it was highest, for methods that judge by trusted
    examples and for lifts."""
    columns = {
        (name, setting): f"{DATASETS[name]}: {SETTINGS[setting]}"
        for name, table in read.items()
        for setting in dict.fromkeys(table["setting"])
    }

    def cell(method: str, at: tuple[str, str]) -> str:
        own = pages.where(read[at[0]], method=method, setting=at[1])
        return pages.mean_pm(own["attack_success_highest"])

    return pages.crossed("highest ASR", {method: method for method in AT_HIGHEST}, columns, cell)


def by_seed(read: Mapping[str, pd.DataFrame]) -> pages.Rows:
    """Return the methods' results on new seeds."""
    columns = {"outcome": "worst group / ASR", "highest": "highest ASR"}
    columns |= {"won": f"seeds with ASR above {SAFE:g}", "both": "with both goals"}
    heads = {
        (name, key): f"{DATASETS[name]}: {text}" for name in read for key, text in columns.items()
    }

    def cell(method: str, at: tuple[str, str]) -> str:
        table = read[at[0]]
        return counted(pages.where(table, method=method), ideal_of(table))[at[1]]

    return pages.crossed("of 20 seeds", named(next(iter(read.values()))), heads, cell)


def by_attacker(read: Mapping[str, pd.DataFrame], new: Mapping[str, pd.DataFrame]) -> pages.Rows:
    """Return the methods' results on new seeds, by attackers."""
    columns = {"outcome": "worst group / ASR", "seeds": f"ASR above {SAFE:g} / both goals"}
    heads = {
        (name, method, key): f"{DATASETS[name]}, {method}: {text}"
        for name, table in read.items()
        for method in dict.fromkeys(table["method"])
        for key, text in columns.items()
    }

    def cell(setting: str, at: tuple[str, str, str]) -> str:
        own = pages.where(read[at[0]], setting=setting, method=at[1])
        found = counted(own, ideal_of(new[at[0]]))
        return found["outcome"] if at[2] == "outcome" else f"{found['won']} / {found['both']}"

    first = next(iter(read.values()))
    settings = {setting: SETTINGS[setting] for setting in first["setting"]}
    return pages.crossed("of 10 seeds", settings, heads, cell)


def ideal_of(table: pd.DataFrame) -> "pd.Series[float]":
    """Return the ideal lift's worst group by seed."""
    return pages.where(table, method="jtt_ideal").set_index("seed")["worst_group"]


def counted(own: pd.DataFrame, ideal: "pd.Series[float]") -> dict[str, str]:
    """Return the result over seeds, in how many attackers succeed, and in how many both goals are
    reached: the worst group is judged against the ideal lift's with the same seed."""
    own = judged(own, own["seed"].map(ideal))
    return {
        "outcome": runs.outcome(own),
        "highest": pages.mean_pm(own["attack_success_highest"]),
        "won": str(own["won"].sum()),
        "both": str(own["both"].sum()),
    }


def main() -> None:
    out = pages.parser(__doc__).parse_args().out
    for name in FILES:
        pages.keep(HERE / f"{name}.csv", measured(name, out))
    pages.write(PAGE, tables())


if __name__ == "__main__":
    main()
