"""What each attack does, compared with the same run without it.

    for name in updates stronger poisons learnt adaptive; do
      fl-testbed run experiments/attacks/$name.yaml
    done
    python -m experiments.attacks.table

Runs are compared seed by seed with the run that differs from them only in the attack. **Bold** is
an attack that reaches its aim: an untargeted one costs 10 points of accuracy, a backdoor wins 50
points of attack success, a subpopulation attack costs 10 points on its cluster. Writes one CSV file
per question to ``results/``, in percent and points, and the tables of the README.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from experiments import pages
from fl_testbed.report.results import finished_runs
from fl_testbed.report.statistics import estimate
from fl_testbed.scenario import Scenario, load_scenarios

HERE = Path(__file__).parent
PAGE, RESULTS = HERE / "README.md", HERE / "results"
AGAINST_MEAN = ("updates", "stronger", "poisons")
STRONGER = "stronger-attacks"
AIMS = {
    "accuracy": ("accuracy_change", -1, 10.0),
    "subpopulation": ("goal_accuracy_change", -1, 10.0),
    "success_rate": ("success_rate_change", 1, 50.0),
}
"""By an attack's aim: the figure that it moves, in which direction, and by how many points to
succeed."""
NON_ADAPTIVE = ("sign_flip", "gaussian", "label_flip", "poisonedfl")
KNOWS = {
    "krum": ("fang_krum", "tailored"),
    "multi_krum": ("tailored",),
    "trimmed_mean": ("fang_trimmed_mean", "tailored"),
    "coordinate_median": ("fang_trimmed_mean", "tailored"),
}
"""By rule, the attacks that were made for it. Other attacks adapt to honest updates only."""
FIGURES = {
    "accuracy": "final.accuracy",
    "worst_group": "final.worst_group_accuracy",
    "success_rate": "attacks.{poison}.attack_success_rate",
    "flip_rate": "attacks.{poison}.flip_rate",
    "goal_accuracy": "attacks.{poison}.accuracy",
}
"""Figures, and their keys in ``summary.json``; those under ``attacks`` are the first poison's."""


UPDATES = """
sign flip | × −1 | sign_flip | × −3 | sign_flip_3
Gaussian in place of the update | N(0, 1²) | gaussian
| N(0.1, 0.1²) | gaussian_blades
the same, relative to the attacker's own update | × 1 | gaussian_ditto | × 200 | gaussian_ditto_200
ALIE | z by its formula, 0.21 | alie | z = 6 | alie_6
| z = 1.5 | alie_1.5
inner product | 0.5 | inner_product_0.5 | 4 | inner_product_4
| 100 | inner_product_100
Min-Max, unit vector | | min_max_unit | one attacker in two | min_max_unit
Min-Max, sign | | min_max_sign | one in two | min_max_sign
Min-Max, deviations | | min_max_std | one in two, a class per client | min_max_std_by_class
Min-Sum, unit vector | | min_sum_unit | one in two | min_sum_unit
Min-Sum, sign | | min_sum_sign | one in two | min_sum_sign
Min-Sum, deviations | | min_sum_std | one in two, a class per client | min_sum_std_by_class
Fang on Krum | | fang_krum | one in two | fang_krum
Fang on trimmed mean | | fang_trimmed_mean
Mimic | | mimic | one in two, a class per client | mimic_by_class
tailored to the rule | | tailored
PoisonedFL | | poisonedfl
label flip, mirrored (a poison) | | flip_mirrored | one in two | flip_mirrored
label flip, random (a poison) | | flip_random | one in two, boosted × 4 | flip_random_boosted
"""
"""Rows of a table: attack | constants | variant | constants with which it also succeeds | the
variant with them, taken from ``stronger.yaml`` if it is there."""
POISONS = """
patch 4 × 4 | patch
patch, sent once, as if by everybody | patch_replaced_once
patch, kept within a ball (PGD, 0.5) | patch_pgd
patch, in coordinates others leave alone (Neurotoxin) | patch_neurotoxin
patch, minority-mimic | patch_minority_mimic | \
at 1.5 of the minority's own spread | patch_minority_mimic_1.5
patch 4 × 4, learnt (A3FL) | adaptive | 5 × 5 in the middle | adaptive_middle
blended, 0.2 | blended
the minority's own feature in a corner | minority_look
distributed, 4 pieces of a patch of 4 × 4 | distributed | patch of 8 × 8 | distributed_8
clean label, patch 4 × 4 | clean_label | \
blended 0.3, ε = 4.7, all of the shard | clean_label_blended
edge case, nobody holds it rightly labelled | edge_case_nobody
edge case, the minority does | edge_case_minority
edge case, everyone does (half of the class) | edge_case_everyone | \
everyone holds a tenth | edge_case_everyone_0.1
label flip, one class, 32 % of the shard | flip_pair | all of the shard | flip_pair_only
gradient matching, one victim, ε = 16/255 | gradient_matching | \
ε = 0.3, boosted × 5 | gradient_matching_0.3_boosted
the same, ε = 0.3 | gradient_matching_0.3
subpopulation | subpopulation | counted by accuracy on the cluster lost | subpopulation
"""
"""Rows of a table: poison | variant | what else it succeeds with | the variant with that."""
ADAPTIVE = {
    "sign_flip": "*knows nothing:* sign flip",
    "gaussian": "Gaussian",
    "label_flip": "label flip",
    "poisonedfl": "PoisonedFL",
    "fang_krum": "*knows the rule:* Fang on Krum",
    "fang_trimmed_mean": "Fang on trimmed mean",
    "tailored_unit": "tailored, unit vector",
    "tailored_sign": "tailored, sign",
    "tailored_std": "tailored, deviations",
    "inner_product": "*sees honest updates:* inner product, 0.5",
    "min_max_unit": "Min-Max, unit vector",
    "min_sum_unit": "Min-Sum, unit vector",
    "min_max": "Min-Max, deviations",
    "min_sum": "Min-Sum, deviations",
    "alie": "ALIE",
    "alie_1.5": "ALIE, z = 1.5",
    "mimic": "Mimic",
}
TRIGGERS = ("fixed", "learnt", "stamped_in_the_test_alone")
UNDER = {
    "mean": "mean",
    "norm_clipping": "clipping to the median norm",
    "multi_krum": "Multi-Krum",
    "coordinate_median": "median",
    "flame": "FLAME",
}
RULES = {
    "krum": "Krum",
    "multi_krum": "Multi-Krum",
    "trimmed_mean": "trimmed mean",
    "coordinate_median": "median",
}


def setting_of(scenario: Scenario) -> str:
    """Return a scenario without its attack, as text: runs that share it can be compared."""
    identity = scenario.identity()
    for key in ("name", "variant", "attack", "training_attack", "schedule", "attackers"):
        del identity[key]
    if is_untargeted_flip(identity["poison"]):
        identity["poison"] = {"kind": "none"}  # it changes only the attackers' own data
    return json.dumps(identity, sort_keys=True)


def is_untargeted_flip(poison: dict) -> bool:
    """Whether a poison flips the labels of all classes, not of one only."""
    return poison["kind"] == "label_flip" and poison["relabel"]["kind"] != "pairwise"


def is_attacked(scenario: Scenario) -> bool:
    """Whether anybody sends or trains on anything other than an honest client would."""
    return any(
        kind.schedule.first != "never"
        and (kind.attack.kind != "none" or kind.poison.kind != "none")
        for kind in scenario.attacker_kinds
    )


def aim_of(scenario: Scenario) -> str:
    """Return the attack's aim, a key of ``AIMS``."""
    if scenario.poison.kind == "none" or is_untargeted_flip(scenario.identity()["poison"]):
        return "accuracy"
    return "subpopulation" if scenario.poison.kind == "subpopulation" else "success_rate"


def measured(scenarios: Iterable[Scenario], out: Path) -> pd.DataFrame:
    """Read finished runs, one row each; figures in percent."""
    rows = []
    for scenario, run in finished_runs(scenarios, out):
        poison = next(iter(scenario.named_poisons), "")
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
        for name, key in FIGURES.items():
            row[name] = 100 * run.figures.get(key.format(poison=poison), math.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def with_changes(runs: pd.DataFrame) -> pd.DataFrame:
    """Add each figure's change against the run without attack, in columns ``*_change``."""
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
    non-adaptive one does, paired by seed; positive: the adaptive attack is stronger."""
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


def of_triggers(scenarios: Iterable[Scenario], out: Path) -> pd.DataFrame:
    """Read each trigger's success while attackers attack and in the last round, a row per run."""
    rows = []
    for scenario, run in finished_runs(scenarios, out):
        rates = pd.read_csv(run.folder / "attacks.csv").set_index("round")["attack_success_rate"]
        row = {"trigger": scenario.variant.partition(",")[0]}
        row |= {"rule": scenario.strategy.aggregation.kind, "seed": scenario.seed}
        ends = {"attacked": scenario.schedule.last, "later": scenario.rounds}
        rows.append(row | {name: 100 * rates[round_] for name, round_ in ends.items()})
    return pd.DataFrame(rows)


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the README, from the result files."""
    against_mean, adaptive, compared = (
        pd.read_csv(RESULTS / f"{name}.csv").to_dict("records")
        for name in ("against_mean", "adaptive", "adaptive_against_plain")
    )
    named = {(row["scenario"], row["variant"]): row for row in against_mean}
    variants = {variant: row for (name, variant), row in named.items() if name != STRONGER}
    stronger = {variant: row for (name, variant), row in named.items() if name == STRONGER}
    cells = {(row["variant"], row["rule"]): row for row in adaptive}
    leads = {(row["attack"], row["rule"]): row for row in compared if row["made_for_it"]}
    return {
        "updates": updates(variants, {**variants, **stronger}),
        "poisons": poisons(variants),
        "learnt": by_trigger(pd.read_csv(RESULTS / "learnt.csv")),
        "adaptive": by_rule(cells, leads),
        "leads": by_rule_leads(leads),
    }


def layout(text: str) -> list[list[str]]:
    """Return the cells of a table that is written as lines of text."""
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


def updates(variants: dict[str, dict], stronger: dict[str, dict]) -> list[list[str]]:
    """Return what attacks on updates cost, as published and with constants where they succeed."""
    rows = [["attack", "published constants", "accuracy lost"]]
    rows[0] += ["where it costs 10 points", "accuracy lost"]
    for name, constants, variant, *other in layout(UPDATES):
        row = [name, constants, _moved(variants[variant], "accuracy")]
        where, more = other or ("", "")
        rows.append([*row, where, _moved(stronger[more], "accuracy") if more else ""])
    return rows


def poisons(variants: dict[str, dict]) -> list[list[str]]:
    """Return what poisons win, as first tried and with settings where they succeed."""
    rows = [["poison", "success without attack", "success", "won"]]
    rows[0] += ["at what else it succeeds", "won"]
    for name, variant, *other in layout(POISONS):
        row = variants[variant]
        before = pages.number(row["success_rate"] - row["success_rate_change"])
        where, more = other or ("", "")
        aim = "subpopulation" if more == variant else "success_rate"
        won = _moved(variants[more], aim) if more else ""
        cells = [before, _cell(row, "success_rate"), _moved(row, "success_rate")]
        rows.append([name, *cells, where, won])
    return rows


def by_trigger(runs: pd.DataFrame) -> list[list[str]]:
    """Return the success of the fixed and of the learnt trigger, and the lead of the latter.

    Bold where the interval excludes zero.
    """
    rows = [["success", "fixed", "learnt", "lead", "stamped in the test alone"]]
    rows[0] += ["fixed, 10 rounds later", "learnt, 10 rounds later", "lead"]
    for rule, title in UNDER.items():
        own = pages.where(runs, rule=rule).set_index("seed")
        fixed, learnt, alone = (pages.where(own, trigger=trigger) for trigger in TRIGGERS)
        row = [title]
        for when in ("attacked", "later"):
            row += [pages.mean_pm(trigger[when], 1) for trigger in (fixed, learnt)]
            row.append(pages.difference(learnt[when] - fixed[when], 1))
            row += [pages.mean_pm(alone[when], 1)] if when == "attacked" else []
        rows.append(row)
    return rows


def by_rule(cells: dict, leads: dict) -> list[list[str]]:
    """Return the accuracy that each attack costs each rule.

    Bold: attacks made for the rule that cost on average at least what the strongest non-adaptive
    attack costs.
    """

    def cell(attack: str, rule: str) -> str:
        lead = leads.get((attack, rule))
        lost = _cell(cells[attack, rule], "accuracy_change", -1)
        return pages.bold(lost, lead is not None and lead["difference"] >= 0)

    return pages.crossed("accuracy lost", ADAPTIVE, RULES, cell)


def by_rule_leads(leads: dict) -> list[list[str]]:
    """Return how much more attacks cost the rules they are made for than the strongest plain one.

    Bold where the interval excludes zero.
    """

    def cell(attack: str, rule: str) -> str:
        if (lead := leads.get((attack, rule))) is None:
            return ""
        return pages.bold(_cell(lead, "difference"), lead["difference"] > lead["difference±"])

    made = {a for a, _ in leads}
    attacks = {a: t.removeprefix("*knows the rule:* ") for a, t in ADAPTIVE.items() if a in made}
    return pages.crossed("lead", attacks, RULES, cell)


def _moved(row: dict, aim: str) -> str:
    """Return by how much an attack moved a figure, bold if that was its aim and it succeeded."""
    column, sign, _ = AIMS[aim]
    return pages.bold(_cell(row, column, sign), row["succeeds"] and row["aim"] == aim)


def _cell(row: dict, name: str, sign: int = 1) -> str:
    return pages.pm(sign * row[name], row[f"{name}±"], 1)


def main() -> None:
    parser = pages.parser(__doc__)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    arguments = parser.parse_args()

    def runs_of(*names: str) -> pd.DataFrame:
        loaded = [load_scenarios(HERE / f"{name}.yaml", arguments.settings) for name in names]
        return measured([scenario for scenarios in loaded for scenario in scenarios], arguments.out)

    adaptive = with_changes(runs_of("adaptive"))
    found = {
        "against_mean": summary(with_changes(runs_of(*AGAINST_MEAN))),
        "learnt": of_triggers(
            load_scenarios(HERE / "learnt.yaml", arguments.settings), arguments.out
        ),
        "adaptive": summary(adaptive),
        "adaptive_against_plain": against_the_best_plain(adaptive),
    }
    for name, table in found.items():
        pages.keep(RESULTS / f"{name}.csv", table, ".1f")
    pages.write(PAGE, tables())


if __name__ == "__main__":
    main()
