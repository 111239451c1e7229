"""The tables of docs/devices.md from the benchmarks' latest figures."""

from pathlib import Path

from experiments import pages
from experiments.benchmarks.measure import latest

PAGE = Path(__file__).parents[1] / "docs" / "devices.md"
MODELS = {"MLP": "MLP", "CNN": "CNN", "ResNet-18, GroupNorm": "ResNet-18"}
SGD = ("SGD", "momentum", "momentum, weight decay")
ADAM = ("Adam",)
STEP = "float32, 1 step: largest"
AGREEMENT = {
    "float64, 3 epochs, all optimizers": ((*SGD, *ADAM), "float64, 3 epochs: largest"),
    "float32, one step: SGD, with and without momentum and decay": (SGD, STEP),
    "float32, one step: Adam, where gradients exceed 1e-5": (
        ADAM,
        f"{STEP} where |gradient| > 1e-5",
    ),
    "float32, one step: Adam, everywhere": (ADAM, STEP),
    "float32, one step: Adam, from cohorts of one client": (
        ADAM,
        "float32, 1 step: from cohorts of one: largest",
    ),
    "float32, one step: Adam, one by one, from the same in float64": (
        ADAM,
        "float32, 1 step: one by one, from float64: largest",
    ),
}
"""Rows of a table: the optimizers, and the figure's name in the benchmark."""
RUNS = {
    "quickstart, MLP, 9 variants of 40 or 45 rounds": "quickstart, MLP, 9 variants",
    "inverted Fashion-MNIST, CNN, the mean, 20 rounds": "inverted Fashion-MNIST, CNN, 1 variants",
}
ROUNDS = {
    "1 local epoch (2 steps), one process": "1000 x 20, 1 local epochs, inline",
    "1 local epoch, two Ray workers": "1000 x 20, 1 local epochs, 2 workers",
    "5 local epochs (10 steps), one process": "1000 x 20, 5 local epochs, inline",
    "5 local epochs, two Ray workers": "1000 x 20, 5 local epochs, 2 workers",
}


def tables() -> dict[str, pages.Rows]:
    """Return the tables of the page, from the result file."""
    found = latest("cohort_agreement")
    steps = [["largest difference of any parameter", *MODELS.values()]]
    for name, (optimizers, figure) in AGREEMENT.items():
        largest = (max(found[f"{m}, {o}", figure] for o in optimizers) for m in MODELS)
        steps.append([name, *(f"{value:.1e}" for value in largest)])
    runs = [["largest difference over a run's variants", "accuracy, points"]]
    runs[0] += ["worst group, points", "loss, any round"]
    for name, setting in RUNS.items():
        figures = ("accuracy", "worst group", "loss")
        values = (found[setting, f"whole runs: largest difference of {f}"] for f in figures)
        runs.append([name, *(f"{value:.2g}" for value in values)])
    found = latest("cohorts_on_cpu")
    rounds = [["seconds per round", "one by one", "cohorts of 100", "ratio"]]
    for name, setting in ROUNDS.items():
        alone, together = (found[setting, f"{w}, per round"] for w in rounds[0][1:3])
        ratio = found[setting, "one by one / cohorts"]
        rounds.append([name, f"{alone:.2f}", f"{together:.2f}", f"{ratio:.1f}"])
    return {"agreement": steps, "whole_runs": runs, "rounds": rounds}
