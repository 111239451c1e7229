"""The command line: arguments in, exit code out.

Exit status: 0 done; 2 the input is wrong; 1 a run failed; 130 interrupted.
"""

import gc
import io
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.table import Table

from fl_testbed.console import RunProgress, make_console
from fl_testbed.engine.errors import PoolError

# Everything else is imported by the command that needs it: it loads torch, and most of it Flower,
# pandas and matplotlib too, and --help should not wait for these.
if TYPE_CHECKING:
    from fl_testbed.engine.datasets import DatasetCache
    from fl_testbed.report.results import RunResult
    from fl_testbed.scenario import AnyScenario

INTERRUPTED = 130
N_TOLD = 3  # failures repeated after the tables, which show all of them
KEPT = "rounds up to the last checkpoint are kept, and --resume continues where runs can be resumed"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    suggest_commands=False,  # click suggests them already
)

data = typer.Typer(help="Get the files of datasets.", no_args_is_help=True, suggest_commands=False)
app.add_typer(data, name="data")


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"fl-testbed {version('fl-testbed')}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Simulate federations: whom does a defence silence, and whom does a lift amplify?"""
    try:
        os.getcwd()
    except FileNotFoundError:  # torch's libraries would end the process, and blame a file of theirs
        _end(2, "the current folder has been removed: change to one that exists")


ScenarioPath = Annotated[Path, typer.Argument(metavar="SCENARIO")]
ScenarioPaths = Annotated[list[Path], typer.Argument(metavar="SCENARIO...")]
OwnFigures = Annotated[
    list[str] | None,
    typer.Option(
        "--figure",
        metavar="FILE.py:NAME",
        help="A function of yours that computes one more column; may be given several times.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key, as in training.lr=0.1; VALUE is YAML. May be given several times.",
    ),
]
Variants = Annotated[
    list[str] | None,
    typer.Option(help="Only this variant, with all its swept values; may be given several times."),
]
Redo = Annotated[
    bool,
    typer.Option(
        "--redo", help="Run again where scenario or code has changed, and replace earlier runs."
    ),
]
RunFolders = Annotated[list[Path], typer.Argument(metavar="RUN_DIR...")]
Baseline = Annotated[
    str | None, typer.Option(help="Variant that all others are compared with, seed by seed.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder that holds the datasets.", envvar="FL_TESTBED_DATA"),
]


class TrackerName(StrEnum):
    """Programs that show runs as they go on."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"


@contextmanager
def _loading() -> Iterator[None]:
    """Import with garbage collection off, and exempt the imported objects from it for good: torch
    has so many that scanning them takes a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if not gc.get_freeze_count():  # the first time only: later there may be real garbage
            gc.freeze()


@app.command()
def run(
    files: ScenarioPaths,
    settings: Settings = None,
    variant: Variants = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs' folders.")] = Path("runs"),
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue unfinished runs, or finished ones for more rounds."
        ),
    ] = False,
    redo: Redo = False,
    engine: Annotated[
        Literal["inline", "ray", "flower"] | None,
        typer.Option(help="Where clients run: here, on Ray, or on Flower's own engine."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of workers; implies --engine ray unless it is flower."),
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster; implies --engine ray.")
    ] = None,
    with_report: Annotated[
        bool, typer.Option("--report", help="Also write the report page at the end.")
    ] = False,
    tracker: Annotated[
        list[TrackerName] | None,
        typer.Option(help="Also show the runs in this program while they go on."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Run all variants and seeds of scenarios, then compare them.

    SCENARIO is a YAML file; the runs of several files go side by side.
    """
    with _loading():
        from fl_testbed.engine.earlier_runs import run_folder
        from fl_testbed.engine.launch import launch
        from fl_testbed.engine.options import Options
        from fl_testbed.kinds import kind_of
        from fl_testbed.report.comparison import compare
        from fl_testbed.report.figures.style import save
        from fl_testbed.report.figures.tension import tension_plane
        from fl_testbed.report.formats import terminal
        from fl_testbed.report.results import find_runs
        from fl_testbed.scenario import load_files
        from fl_testbed.scenario.draft import sets_seed
        from fl_testbed.trackers import start_trackers

    chosen = {"kind": engine, "workers": workers, "ray_address": ray_address}
    if engine is None and (workers is not None or ray_address is not None):
        chosen["kind"] = "ray"
    overrides = [f"engine.{key}={value}" for key, value in chosen.items() if value is not None]
    scenarios = load_files(files, [*(settings or []), *overrides], variant or [])
    console = make_console()
    trackers = start_trackers(tracker or [], out)
    command = shlex.join(["fl-testbed", *sys.argv[1:]])
    is_part = bool(variant) or sets_seed(settings or [])
    options = Options(out, data_dir, command, resume, redo, trackers, is_part=is_part)
    with RunProgress(console, scenarios) as progress:
        try:
            failures = launch(scenarios, options, progress, kind_of(scenarios))
        except OSError as fault:
            if progress.has_begun:
                fault.add_note(KEPT)
            raise
    for name in dict.fromkeys(s.name for s in scenarios):
        folder = out / name
        own = (run_folder(out, s).path for s in scenarios if s.name == name)
        comparison = compare(find_runs(filter(Path.exists, own)))  # one may have been removed
        console.print()
        console.print(terminal(comparison, console.width))
        plane = tension_plane(comparison)
        if plane is not None:
            save(plane, folder / "tension", (".png",))
            console.print(f"figure: {folder / 'tension.png'}", soft_wrap=True)
        if with_report:
            console.print(f"report: {_reported(folder)}", soft_wrap=True)
        console.print(f"runs:   {folder}", soft_wrap=True)
    if failures:
        more = [f"and {len(failures) - N_TOLD} more, as said above"] * (len(failures) > N_TOLD)
        _end(1, *failures[:N_TOLD], *more)


@app.command("compare")
def compare_(
    runs: RunFolders,
    baseline: Baseline = None,
    form: Annotated[
        Literal["table", "csv", "markdown", "latex"],
        typer.Option("--format", help="Format of the output."),
    ] = "table",
    column: Annotated[
        list[str] | None,
        typer.Option(help="Only the column with this heading; may be given several times."),
    ] = None,
    figure: OwnFigures = None,
) -> None:
    """Compare variants in tables: one row each, with means over seeds and 95 % intervals.

    RUN_DIR is a run's folder, or one that holds runs at any depth; some may still go on.
    """
    with _loading():
        from fl_testbed.report.columns import SECTIONS, UnknownColumnError, columns_named
        from fl_testbed.report.comparison import UnknownVariantError, compare
        from fl_testbed.report.formats import FORMATS, terminal

    found = _found_runs(runs, figure)
    try:
        sections = columns_named(column, [run.figures for run in found]) if column else SECTIONS
        comparison = compare(found, baseline, sections)
    except UnknownColumnError as fault:
        _refuse("--column", str(fault))
    except UnknownVariantError as fault:
        _refuse("--baseline", str(fault))
    if form == "table":
        console = make_console()
        console.print(terminal(comparison, console.width))
    else:
        print(FORMATS[form](comparison), end="")


@app.command("replay")
def replay_(
    runs: RunFolders,
    settings: Settings = None,
    out: Annotated[Path, typer.Option(help="Folder for the replays' folders.")] = Path("replays"),
    redo: Redo = False,
    data_dir: DataDir = None,
) -> None:
    """Apply another strategy to the updates that runs recorded: whom would it have heard?

    RUN_DIR is a finished run's folder, or one that holds such runs at any depth.
    """
    with _loading():
        from fl_testbed.engine.options import Options
        from fl_testbed.engine.replay import replay
        from fl_testbed.report.columns import HEARD
        from fl_testbed.report.comparison import compare
        from fl_testbed.report.formats import terminal
        from fl_testbed.report.results import Status, find_runs

    console = make_console()
    done = [run for run in _found_runs(runs) if run.status is Status.DONE]
    if not done:
        _refuse("", "holds no finished run, and only finished ones can be replayed", *runs)
    options = Options(out, data_dir, "", redo=redo)
    replays = replay([run.folder for run in done], settings or [], options)
    found = [*done, *find_runs(folder for folder, _ in replays)]
    console.print(terminal(compare(found, sections=HEARD), console.width))
    n_same = sum(same for _, same in replays)
    if n_same or not settings:  # nobody expects it of another rule
        console.print(
            f"{n_same} of {len(replays)} replays gave the weights of the run itself, to the byte"
        )
    for name in dict.fromkeys(run.name for run in done):
        console.print(f"replays: {out / name}", soft_wrap=True)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR")],
    baseline: Baseline = None,
    with_pdf: Annotated[
        bool, typer.Option("--pdf", help="Also write the figures as PDF, for LaTeX.")
    ] = False,
    figure: OwnFigures = None,
) -> None:
    """Write a page with tables, figures and scenario, and the figures as files.

    They go into RUN_DIR, a sweep's folder or a run's, as report.html and figures/.
    """
    page = _reported(folder, baseline, figure, with_pdf=with_pdf)
    make_console().print(f"report: {page}", soft_wrap=True)


def _reported(
    folder: Path,
    baseline: str | None = None,
    figures: list[str] | None = None,
    *,
    with_pdf: bool = False,
) -> Path:
    with _loading():
        from fl_testbed.report.comparison import UnknownVariantError
        from fl_testbed.report.html import write_report

    try:
        return write_report(folder, _found_runs([folder], figures), baseline, with_pdf=with_pdf)
    except UnknownVariantError as fault:
        _refuse("--baseline", str(fault))


def _found_runs(folders: list[Path], figures: list[str] | None = None) -> "list[RunResult]":
    from fl_testbed.report.own_figures import with_own  # the command has loaded most of it
    from fl_testbed.report.results import find_runs

    if missing := [folder for folder in folders if not folder.is_dir()]:
        _refuse("", "no such folder", *missing)
    runs = find_runs(folders)
    if not runs:
        text = "holds no run: give a run's folder, or one that holds runs at any depth"
        _refuse("", text, *folders)
    return with_own(runs, figures or [])


@app.command()
def validate(
    files: ScenarioPaths,
    settings: Settings = None,
    variant: Variants = None,
    data_dir: DataDir = None,
) -> None:
    """Check scenarios, and show their variants, their groups and the memory that runs need."""
    with _loading():
        from fl_testbed.engine.datasets import DatasetCache
        from fl_testbed.scenario import Fault, ScenarioError, load_files

    datasets = DatasetCache(data_dir)
    faults: list[Fault] = []
    for file in files:  # unlike those of one run, they may differ in kind and engine
        try:
            _show_checked(load_files([file], settings or [], variant or []), datasets)
        except ScenarioError as error:
            faults += error.faults
    if faults:
        raise ScenarioError(*faults)


def _show_checked(loaded: "list[AnyScenario]", datasets: "DatasetCache") -> None:
    from fl_testbed.engine.placement import check_device, gpus
    from fl_testbed.kinds import kind_of
    from fl_testbed.scenario import CentralizedScenario, Scenario, ScenarioError

    if federated := [item for item in loaded if isinstance(item, Scenario)]:
        from fl_testbed.engine.datasets import check_data
        from fl_testbed.engine.tables import group_table, variant_table

        check_data(federated, datasets)
        variants = variant_table(federated, datasets)
        all_roles = next((s for s in federated if s.clients.poisoned), federated[0])
        groups = group_table(all_roles, datasets.get(all_roles))
    else:
        from fl_testbed.centralized import tables

        pooled = [item for item in loaded if isinstance(item, CentralizedScenario)]
        kind_of(pooled).check(pooled, datasets)
        variants = tables.variant_table(pooled)
        groups = tables.group_table(pooled[0], datasets.get(pooled[0]))
    variants.title = f"{loaded[0].name}: {len(loaded)} run{'s' * (len(loaded) != 1)}"
    console = make_console()
    console.print(variants)
    console.print(groups)
    if loaded[0].engine.ray_address == "local":
        try:
            check_device(loaded[0], len(gpus()))
        except ScenarioError as error:  # this may be a cluster's login node
            text = f"cannot run on this machine: {error.faults[0]}"
            console.print(text, soft_wrap=True)


@app.command()
def show(
    scenario: ScenarioPath,
    settings: Settings = None,
    variant: Annotated[
        str | None, typer.Option(help="The variant to show; by default the first.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; a table's is CSV.")] = None,
    columns: Annotated[int, typer.Option(min=1, help="Number of examples of each kind.")] = 10,
    data_dir: DataDir = None,
) -> None:
    """Draw clean, minority and poisoned examples with their labels, to look at."""
    with _loading():
        from fl_testbed.data.specimens import specimens
        from fl_testbed.engine.datasets import DatasetCache, checked_federation
        from fl_testbed.report.example_sheet import FORMATS, image_sheet, table_sheet
        from fl_testbed.scenario import Scenario, load_scenarios

    loaded = load_scenarios(scenario, settings or [], [] if variant is None else [variant])
    one = loaded[0]
    if not isinstance(one, Scenario):
        text = "is centralized, but show draws what clients hold: use validate"
        _refuse("kind", text, scenario)
    federation = checked_federation(one, DatasetCache(data_dir))
    attackers = {name: one.attackers_with(name) for name in one.named_poisons}
    strips = specimens(federation, attackers, columns, one.evaluation.max_examples)
    if not strips:
        text = "hold nothing to show: there is no honest client and no poison"
        _refuse("clients", text, scenario)
    of_images = federation.dataset.holds_images
    path = Path(f"{one.name}-{one.variant}.{'png' if of_images else 'csv'}") if out is None else out
    formats = FORMATS if of_images else ("csv",)
    if path.suffix[1:].lower() not in formats:
        text = f"needs a name that ends in one of {', '.join(formats)}, got {path.name}"
        _refuse("--out", text)
    if of_images:
        image_sheet(strips, f"{one.name}, {one.variant}, seed {one.seed}", path)
    else:
        table_sheet(strips, federation.dataset.features, path)
    make_console().print(f"examples: {path}", soft_wrap=True)


@app.command("list")
def list_(
    what: Annotated[str | None, typer.Argument()] = None,
) -> None:
    """List all that a scenario can name, from rules to datasets, with its parameters.

    WHAT is one section, such as rules; by default all are listed.
    """
    with _loading():
        from fl_testbed.scenario.catalogue import CATALOGUE, describe_kind

    if what is not None and what not in CATALOGUE:
        raise typer.BadParameter(f"needs one of {', '.join(CATALOGUE)}, got {what!r}")
    console = make_console()
    for title, kinds in CATALOGUE.items():
        if what not in (None, title):
            continue
        table = Table(title=title, title_justify="left")
        rows = {kind: describe_kind(spec) for kind, spec in kinds.items()}
        table.add_column("kind", no_wrap=True)
        table.add_column("what it is")
        table.add_column("parameters", max_width=32)
        if any(needs != "–" for _, _, needs in rows.values()):
            table.add_column("needs", no_wrap=True)
        for kind, row in rows.items():
            table.add_row(kind, *row[: len(table.columns) - 1])
        console.print(table)


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    with _loading():
        from fl_testbed.scenario.json_schema import scenario_schema

    print(json.dumps(scenario_schema(), indent=1, ensure_ascii=False))


@data.command("fetch")
def fetch_(
    name: Annotated[str, typer.Argument()],
    data_dir: DataDir = None,
) -> None:
    """Download a dataset's files into the data folder, or say how to get them.

    NAME is the dataset's kind, such as fashion_mnist.
    """
    with _loading():
        from fl_testbed.data import DataError
        from fl_testbed.data.sources import fetch

    if data_dir is None:
        text = "needs a folder for the files: pass --data-dir DIR or set FL_TESTBED_DATA"
        _refuse("data fetch", text)
    try:
        is_new = fetch(name, data_dir)
    except DataError as fault:
        _refuse("data fetch", str(fault))
    already = "" if is_new else " already and complete: nothing was downloaded"
    make_console().print(f"{name} is in {data_dir}{already}", soft_wrap=True)


def _refuse(key: str, text: str, *files: Path) -> NoReturn:
    """Raise a ScenarioError: one fault for each file, or a single one without a file."""
    from fl_testbed.scenario import Fault, ScenarioError

    raise ScenarioError(*(Fault(str(file), key, text) for file in files or ("",)))


def main() -> None:
    """Run the command line and turn what went wrong into a message and an exit status."""
    # Set here because Ray reads these when it is imported. Without them it prints paragraphs about
    # a lost worker among the tables (events.log has a line), and aborts with a stack at a SIGTERM.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    runs = sys.argv[1:2] == ["run"]  # the other commands have no rounds to keep
    # Changed runs that have not begun yet will need --redo again.
    kept = KEPT.replace("--resume", "--resume --redo") if "--redo" in sys.argv else KEPT
    for stream in (sys.stdout, sys.stderr):  # the user's encoding may lack ± or †
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except SystemExit as end:  # typer turns a Ctrl-C into one
        if end.code == INTERRUPTED:
            _end(INTERRUPTED, f"interrupted: {kept}" if runs else "interrupted")
        raise
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        has_begun = KEPT in getattr(error, "__notes__", [])
        _end(1, f"the run stopped: {what}; {kept}" if has_begun else what)
    except Exception as error:
        from fl_testbed.scenario import ScenarioError
        from fl_testbed.scenario.users_code import OwnCodeError

        if isinstance(error, ScenarioError):
            _end(2, *(str(fault) for fault in error.faults))
        if isinstance(error, PoolError | OwnCodeError):
            _end(1, f"the run stopped: {error}" if runs else str(error))
        raise


def _end(status: int, *lines: str) -> NoReturn:
    console = make_console(stderr=True)
    for line in lines:
        console.print(line, soft_wrap=True)
    raise SystemExit(status)
