"""Runs questions, and writes their results, the tables in their pages and their figures.

    python -m experiments.oil_and_water_federated.run                  # all ten
    python -m experiments.oil_and_water_federated.run defences

Finished runs are kept, and unfinished ones go on. ``--quick`` runs one seed of what the figures
show, and writes results, tables and figures into a folder of its own, ``runs/quick``.
"""

import importlib
from pathlib import Path

from experiments import pages
from experiments.oil_and_water_federated import runs
from fl_testbed import api
from fl_testbed.report.figures.style import save
from fl_testbed.scenario import AnyScenario

QUESTIONS = (
    "defences",
    "reweightings",
    "combinations",
    "separability",
    "concentration",
    "minority_mimic",
    "sensitivity",
    "tuning",
    "weights",
    "seeds",
)
"""Each has a folder of its name; later ones also show results of earlier ones."""
NOT_QUICK = {"tuning", "seeds"}
"""Questions about several seeds, which a quick look at one seed cannot answer."""
IN_TABLES_ALONE = {
    "defences": {"no_attack", "min_max", "minority_mimic"},
    "reweightings": {"no_attack", "afl", "drfa", "tilted", "q_fedavg"},
    **{f"reweightings-{name}": {"easy"} for name in ("fashion-mnist", "adult", "writers")},
}
"""By scenario, methods and attackers that no figure shows: a quick look leaves them out."""


def main() -> None:
    parser = pages.parser(__doc__)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--quick", action="store_true", help="one seed, into a folder of its own")
    parser.add_argument("--engine", choices=("inline", "ray"), help="the scenarios' by default")
    arguments = parser.parse_args()
    unknown = {*arguments.questions} - {*QUESTIONS}
    if unknown:
        parser.error(f"unknown question {', '.join(sorted(unknown))}: {', '.join(QUESTIONS)}")
    if arguments.quick and NOT_QUICK & {*arguments.questions}:
        parser.error(f"--quick runs one seed, which cannot answer {', '.join(sorted(NOT_QUICK))}")
    out = arguments.out / "quick" if arguments.quick else arguments.out
    results = out / "results" if arguments.quick else runs.HERE
    asked = arguments.questions or {*QUESTIONS} - (NOT_QUICK if arguments.quick else set())
    questions = [q for q in QUESTIONS if q in asked]
    try:
        files = [file for question in questions for file in runs.scenario_files(question)]
        only = in_figures if arguments.quick else None
        api.run(files, out=out, engine=arguments.engine, resume=True, only=only)
    except api.ScenarioError as fault:
        parser.exit(2, f"{fault}\n")
    except api.RunFailedError as fault:
        parser.exit(1, f"{fault}\n")
    for question in questions:
        try:
            write(question, out, results)
        except FileNotFoundError as fault:  # results of another question, which this one also shows
            parser.exit(2, f"{fault.filename} is not there yet: run that question first\n")


def in_figures(scenario: AnyScenario) -> bool:
    """Whether a run is of the first seed and a figure shows its method and attackers."""
    parts = set(scenario.variant.split(",attackers="))
    shown = all(not parts & IN_TABLES_ALONE[n] for n in IN_TABLES_ALONE if n in scenario.name)
    aside = scenario.name.endswith(("-unattacked", "-told-two"))
    return scenario.seed == 0 and shown and not aside


def write(question: str, out: Path, results: Path) -> None:
    """Write a question's rows, tables and figure into a folder of results."""
    runs.keep(question, results, runs.measured(runs.scenario_files(question), out))
    table = importlib.import_module(f"experiments.oil_and_water_federated.{question}.table")
    if results == runs.HERE:
        pages.write(table.PAGE, table.tables())
    else:
        text = pages.titled(table.tables(results))
        (results / question / "tables.md").write_text(text, encoding="utf-8")
    save(table.figure(results), results / question / "figure", (".png",))
    print(f"{question}: {results / question}", flush=True)


if __name__ == "__main__":
    main()
