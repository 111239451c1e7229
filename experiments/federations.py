"""The table of docs/federations.md: the experiments' federations, from their scenario files."""

from collections.abc import Iterable
from pathlib import Path

from experiments import pages
from fl_testbed.scenario import Scenario, load_scenarios

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "federations.md"
OIL = "experiments/oil_and_water_federated/reweightings"
DATASETS = "experiments/datasets"
PAGES = {
    "../README.md": ("quickstart", ["configs/quickstart.yaml"]),
    "tutorial/README.md": ("tutorial", ["docs/tutorial/scenario.yaml"]),
    "comparing.md": ("comparing", ["configs/defence_by_attack.yaml"]),
    "../experiments/oil_and_water_federated/README.md": (
        "oil_and_water_federated",
        [f"{OIL}/{name}.yaml" for name in ("fashion_mnist", "adult", "writers", "faces")],
    ),
    "../experiments/shielding/README.md": (
        "shielding",
        [f"experiments/shielding/{name}.yaml" for name in ("fashion", "adult")],
    ),
    "../experiments/lifting/README.md": (
        "lifting",
        [f"experiments/lifting/{name}.yaml" for name in ("fashion", "digits", "writers", "adult")],
    ),
    "../experiments/combinations/README.md": (
        "combinations",
        [f"experiments/combinations/{name}.yaml" for name in ("backdoor", "flip")],
    ),
    "../experiments/escapes/README.md": (
        "escapes",
        [f"experiments/escapes/{name}.yaml" for name in ("fashion", "adult")],
    ),
    "../experiments/datasets/README.md": (
        "datasets",
        [
            "configs/inverted_fashion_mnist.yaml",
            "configs/adult_by_sex_and_income.yaml",
            "configs/writers_by_population.yaml",
            "configs/fairface_by_race.yaml",
            "configs/fairface_by_gender_and_age.yaml",
            f"{DATASETS}/writers_cnn.yaml",
            f"{DATASETS}/fairface_cnn.yaml",
            f"{DATASETS}/fairface_by_gender_and_age_cnn.yaml",
        ],
    ),
    "../experiments/attacks/README.md": ("attacks", ["experiments/attacks/poisons.yaml"]),
}


def tables() -> dict[str, pages.Rows]:
    """Return the table of the page, from the scenario files."""
    rows = [
        {"page": f"[{name}]({address}): [{Path(file).stem}](../{file})"} | _of(file)
        for address, (name, files) in PAGES.items()
        for file in files
    ]
    return {"federations": pages.records(rows)}


def _of(file: str) -> dict[str, str]:
    scenarios = [s for s in load_scenarios(ROOT / file) if isinstance(s, Scenario)]
    plain = max(scenarios, key=lambda s: (s.variant in ("mean", "none"), s.clients.poisoned))
    clients = plain.clients
    roles = (clients.honest_majority, clients.honest_minority, clients.poisoned)
    hidden = getattr(plain.model, "hidden", "")
    return {
        "dataset": _dataset(plain),
        "clients: majority / minority / attackers": " / ".join(map(str, roles)),
        "examples each": str(clients.examples_each),
        "model": f"{plain.model.kind} {hidden}",
        "lr": f"{plain.training.lr:g}",
        "rounds": str(plain.rounds),
        "JTT factor": _several(_lift(s, "jtt", "factor") for s in scenarios),
        "agnostic step": _several(_lift(s, "agnostic", "step_size") for s in scenarios),
        "seeds": str(len({s.seed for s in scenarios})),
    }


def _dataset(scenario: Scenario) -> str:
    dataset, minority = scenario.dataset, scenario.dataset.minority
    size = getattr(dataset, "size", None)
    by = getattr(minority, "groups", None) or getattr(minority, "by", None) or [minority.kind]
    return f"{dataset.kind}{f' {size} × {size}' if size else ''}, {' and '.join(by)}"


def _lift(scenario: Scenario, kind: str, key: str) -> float | None:
    lift = getattr(scenario.strategy, "reweighting", None)
    return getattr(lift, key) if lift is not None and lift.kind == kind else None


def _several(values: Iterable[float | None]) -> str:
    return ", ".join(f"{value:g}" for value in sorted({*values} - {None})) or "–"
