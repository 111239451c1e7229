"""Compares methods of your own with all that were tried in the federations of these pages.

    python -m experiments.oil_and_water_federated.yours mine.yaml

``mine.yaml`` holds only ``variants``: rules, lifts, or both. Each runs on the datasets against no
attacker, the federation's backdoor, Min-Max and minority-mimic, with the same five seeds as all
other methods. Finished runs are kept; those whose method or code has changed since run again.
Results, tables and figure go to ``runs/yours/mine``.
"""

from itertools import cycle
from pathlib import Path

import pandas as pd
import yaml
from matplotlib.figure import Figure
from rich.table import Table

from experiments import pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.combinations.table import goal, panel
from experiments.oil_and_water_federated.defences.table import ATTACKS, BASE
from fl_testbed import api
from fl_testbed.console import make_console
from fl_testbed.report.figures.style import FAINT, house_style, save

SHOWN = ("worst_group", "attack_success")
IDEAL, UNDEFENDED = map(runs.name_of, ("jtt_ideal", "mean"))
LIFTS = ("jtt", "jtt_ideal", "agnostic", "afl", "drfa", "tilted", "q_fedavg", "fedmgda_plus")
N_NEAREST = 10  # methods of these pages that a table shows beside yours
MARKERS = "osD^vP*X"
NOTE = """Figures are means over seeds ± half of the 95 % interval (Student's t).
weights: minority / attackers, each over its fair share, against the backdoor
short: the points by which a method misses two goals, added up: a worst group at most 5 below the
ideal lift's (against the backdoor or without an attack, whichever is missed by more), and an ASR of
at most 5 against the backdoor
told 2: the rule is told the true number of attackers; others are told 4
† an oracle, which is told who is who
In runs of lifts without a defence, and of all lifts under minority-mimic, clients held
other examples.
"""


def main() -> None:
    parser = pages.parser(__doc__, Path("runs/yours"))
    parser.add_argument("methods", type=Path, metavar="mine.yaml", help="variants, as in scenarios")
    parser.add_argument(
        "--on",
        nargs="+",
        choices=[*runs.FEDERATIONS],
        metavar="DATASET",
        help=f"{', '.join(runs.FEDERATIONS)} (default: all)",
    )
    parser.add_argument("--data-dir", help="folder of the datasets (default: FL_TESTBED_DATA)")
    parser.add_argument("--quick", action="store_true", help="only the first seed")
    parser.add_argument("--engine", choices=("inline", "ray"), help="the scenarios' by default")
    arguments = parser.parse_args()
    out = arguments.out / arguments.methods.stem
    try:
        files = written(arguments.methods, arguments.on or [*runs.FEDERATIONS], out)
    except (OSError, ValueError, yaml.YAMLError) as fault:
        parser.exit(2, f"{arguments.methods}: {' '.join(str(fault).split())}\n")
    only = (lambda scenario: scenario.seed == 0) if arguments.quick else None
    try:
        api.run(
            files,
            out=out,
            data_dir=arguments.data_dir,
            engine=arguments.engine,
            resume=True,
            redo=True,
            only=only,
        )
        failures = ""
    except api.ScenarioError as fault:
        parser.exit(2, f"{fault}\n")
    except api.RunFailedError as fault:  # tables then show the other runs
        failures = f"{fault}\n"
    rows = runs.measured(files, out)
    if BASE not in set(rows.get("point", [])):
        parser.exit(1, failures)
    pages.keep(out / "results.csv", rows)
    others = known()
    others = others[others["seed"].isin(rows["seed"])]
    tables = {
        title: beside_others(*(pages.where(found, federation=name) for found in (rows, others)))
        for name, title in runs.federations(rows).items()
    }
    for title, lines in tables.items():
        _show(title, lines)
    (out / "tables.md").write_text(f"{pages.titled(tables)}\n{NOTE}", encoding="utf-8")
    save(figure(rows, others), out / "figure", (".png",))
    print(f"{NOTE}\ntables, figure, results: {out}")
    if failures:
        parser.exit(1, failures)


def written(own: Path, federations: list[str], out: Path) -> list[Path]:
    """Write a scenario file for each federation, with the methods of the user's file as variants.

    Raises:
        ValueError: If the file holds anything but variants.
    """
    content = yaml.safe_load(own.read_text("utf-8"))
    is_alone = isinstance(content, dict) and [*content] == ["variants"]
    if not is_alone or not content["variants"]:  # no variant would be the plain mean
        raise ValueError("needs variants and nothing else: all methods meet the same federations")
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name in federations:
        bases = [runs.HERE / "defences" / f"{name}.yaml", own.resolve()]
        scenario = {"extends": [str(base) for base in bases], "name": name}
        files.append(out / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(scenario), encoding="utf-8")
    return files


def known() -> pd.DataFrame:
    """Return the runs of the methods of these pages, with the name of each for readers."""
    mimics = runs.kept("minority_mimic", runs.HERE).query("point == 'mimic'")
    pairs = [runs.COMBINED.get(variant, (variant, "mean")) for variant in mimics["variant"]]
    mimics[["lift", "defence"]] = pairs
    mimics["point"] = "minority_mimic"
    rows = pd.concat([runs.tried(runs.HERE), mimics], ignore_index=True)
    rows = rows[rows["lift"].isin(["none", *LIFTS]) | (rows["defence"] != "mean")]
    methods = zip(rows["lift"], rows["defence"], strict=True)
    return rows.assign(method=[_named(lift, defence) for lift, defence in methods])


def _named(lift: str, defence: str) -> str:
    parts = [method for method, nothing in ((lift, "none"), (defence, "mean")) if method != nothing]
    return ", ".join(map(runs.name_of, parts or ["mean"]))


def beside_others(own: pd.DataFrame, others: pd.DataFrame) -> list[list[str]]:
    """Return the user's methods, the undefended mean, an oracle's lift, and the methods nearest to
    it."""
    wanted = {p: goal(pages.where(others, point=p)) for p in ("no_attack", BASE)}

    def short(rows: pd.DataFrame) -> float:
        means = rows.groupby("point")[[*SHOWN]].mean()
        below = [wanted[p][0] - means.loc[p, "worst_group"] for p in wanted if p in means.index]
        return max(0.0, *below) + max(0.0, means.loc[BASE, "attack_success"] - wanted[BASE][1])

    by_name = {str(method): rows for method, rows in others.groupby("method")}
    nearest = [name for name in by_name if name not in (IDEAL, UNDEFENDED)]
    nearest.sort(key=lambda name: short(by_name[name]))
    shown = {
        f"→ {variant}": rows
        for variant, rows in own.groupby("variant", sort=False)
        if BASE in set(rows["point"])
    }
    shown |= {name: by_name[name] for name in (UNDEFENDED, IDEAL, *nearest[:N_NEAREST])}
    points = [point for point in ATTACKS if point in set(own["point"])]
    lines = [["worst group / ASR, %", *(ATTACKS[point] for point in points), "weights", "short"]]
    for method, rows in shown.items():
        cells = [runs.outcome(pages.where(rows, point=point)) for point in points]
        heard = runs.weights(pages.where(rows, point=BASE))
        lines.append([method, *cells, heard, pages.number(short(rows))])
    return lines


def _show(title: str, lines: list[list[str]]) -> None:
    table = Table(*lines[0], title=title)
    for line in lines[1:]:
        table.add_row(*line)
    make_console().print(table)


def figure(own: pd.DataFrame, others: pd.DataFrame) -> Figure:
    """Draw the user's methods among the others: worst group on the y axis, attack success on x."""
    own, others = (pages.where(rows, point=BASE) for rows in (own, others))
    with house_style():
        drawing = Figure(figsize=(11, 4), layout="constrained")
        for name, axes in runs.panels(drawing, own).items():
            there, mine = (pages.where(rows, federation=name) for rows in (others, own))
            panel(axes, runs.FEDERATIONS[name], *goal(there))
            x, y = there.groupby("method")[[*SHOWN]].mean().to_numpy().T[::-1]
            axes.plot(
                x, y, "o", color=FAINT, alpha=0.5, markersize=5, label="methods of these pages"
            )
            for marker, (variant, rows) in zip(
                cycle(MARKERS), mine.groupby("variant", sort=False), strict=False
            ):
                worst, success = rows[[*SHOWN]].mean()
                axes.plot(success, worst, marker, markersize=8, label=variant)
        first = drawing.axes[0]
        first.set_ylabel("worst group, %")
        drawing.legend(*first.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return drawing


if __name__ == "__main__":
    main()
