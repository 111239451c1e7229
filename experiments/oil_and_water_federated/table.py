"""Constants of the federations and of the methods, and how many runs each question takes."""

from pathlib import Path

import pandas as pd

from experiments import pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.run import QUESTIONS
from fl_testbed.scenario import Scenario, load_scenarios
from fl_testbed.scenario.spec import Spec

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
INPUTS = {
    "fashion_mnist": "28 × 28 grey",
    "adult": "a row of the table",
    "writers": "28 × 28 grey",
    "faces": "{0} × {0} RGB",
}


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the page, from scenarios and result files."""
    return {"federations": federations(), "methods": methods(), "runs": n_runs()}


def federations() -> list[list[str]]:
    """Return the constants of the federations, a column for each."""
    loaded = {n: load_scenarios(HERE / "federations" / f"{n}.yaml")[0] for n in runs.FEDERATIONS}
    columns = [constants(name, scenario) for name, scenario in loaded.items()]
    lines = [["", *runs.FEDERATIONS.values()]]
    return lines + [[key, *(column[key] for column in columns)] for key in columns[0]]


def constants(name: str, scenario: Scenario) -> dict[str, str]:
    """Return a federation's constants by name, as text."""
    clients, training, test = scenario.clients, scenario.training, scenario.evaluation
    roles = (clients.honest_majority, clients.honest_minority, clients.poisoned)
    trigger = scenario.poison.trigger
    stamp = f"strength {trigger.strength:g}" if trigger.kind == "added" else ""
    if trigger.kind == "features":
        stamp = ", ".join(f"{key} = {value:g}" for key, value in trigger.set.items())
    return {
        "clients: majority / minority / attackers": " / ".join(map(str, roles)),
        "examples of a client": str(clients.examples_each),
        "an example": INPUTS[name].format(getattr(scenario.dataset, "size", "")),
        "hidden units of the MLP": ", ".join(map(str, scenario.model.hidden)),
        "learning rate (SGD)": f"{training.lr:g}",
        "batch size / local epochs": f"{training.batch_size} / {training.local_epochs}",
        "rounds": str(scenario.rounds),
        "share of an attacker's examples that is poisoned": f"{scenario.poison.fraction:g}",
        "trigger": stamp,
        "test examples": f"{test.max_examples:,}" if test.max_examples else "all",
        "evaluated": "every round" if test.every == 1 else f"every {test.every} rounds",
    }


def methods() -> list[list[str]]:
    """Return the constants of lifts and rules; those with the same constants share a row."""
    lines = [["lifts and rules", "constants"]]
    for question, of in (("reweightings", "reweighting"), ("defences", "aggregation")):
        scenarios = load_scenarios(HERE / question / "faces.yaml")
        own = {s.variant.partition(",")[0]: getattr(s.strategy, of) for s in scenarios}
        shown = [n for n in own if n not in ("mean", "none") and "_ideal" not in n]
        shown = [n for n in shown if not n.endswith("_worst_case")]
        alike: dict[str, list[str]] = {}
        for name in shown:
            alike.setdefault(described(own[name]), []).append(runs.name_of(name))
        lines += [[", ".join(names), text or "none"] for text, names in alike.items()]
    return lines


def described(spec: Spec) -> str:
    """Return a method's constants as text, without those that are None."""
    values = spec.model_dump(exclude={"kind"}, exclude_none=True)
    return ", ".join(f"`{k}` {_value(value)}" for k, value in values.items())


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def n_runs() -> list[list[str]]:
    """Return how many runs each question takes, from the result files."""
    counts = {question: len(runs.kept(question, runs.HERE)) for question in QUESTIONS}
    files = (HERE.parent / "escapes").glob("*.csv")
    lines = [["question", "runs"], *([name, f"{n:,}"] for name, n in counts.items())]
    lines.append(["all ten", f"{sum(counts.values()):,}"])
    return [*lines, ["escapes", f"{sum(len(pd.read_csv(file)) for file in files):,}"]]
