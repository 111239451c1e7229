"""Runs a list of scenarios, each into its own folder."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from fl_testbed.data import Dataset
from fl_testbed.engine import federated
from fl_testbed.engine.datasets import DatasetCache, by_dataset
from fl_testbed.engine.earlier_runs import check_folders, goes_on, other_data, refuse, run_folder
from fl_testbed.engine.local_ray import keep_others_out
from fl_testbed.engine.options import Options, Progress
from fl_testbed.engine.ownership import in_turn
from fl_testbed.engine.placement import check_device, gpus
from fl_testbed.engine.run_folder import RunFolder
from fl_testbed.engine.run_writer import Compute, Kind, RunWriter
from fl_testbed.scenario import AnyScenario, Fault, ScenarioError
from fl_testbed.scenario.naming import named
from fl_testbed.scenario.own_specs import fresh_code
from fl_testbed.scenario.places import PLAN, place_of_run

N_NAMED = 3  # of the variants of earlier commands, in a note


def launch(
    scenarios: Sequence[AnyScenario],
    options: Options,
    progress: Progress,
    kind: Kind = federated,
    compute: Compute | None = None,
) -> list[str]:
    """Run scenarios of one kind (federated by default), on the engine that they share.

    Runs that are done already are skipped; a run that fails does not stop the others.

    Args:
        scenarios: The runs.
        options: How to run them.
        progress: Is told how they go.
        kind: What runs of this kind do.
        compute: Computes and writes one run, in place of the engine that the scenarios name.

    Returns:
        A line for each run that failed, or that another command is writing.

    Raises:
        ScenarioError: If something is wrong that shows before the first run.
        OSError: If the disk is full or broken, so that later runs would fail as well.
        PoolError: If there are no workers to run on.
    """
    datasets = DatasetCache(options.data_dir)
    left = by_dataset(check_folders(scenarios, options))
    kind.check(left, datasets)
    n_changed = _on_other_data(left, options, datasets)
    for text in write_plan(scenarios, options):
        progress.note(text)
    if options.redo:  # else another scenario's run is refused
        others = ((run_folder(options.out, item), item) for item in left)
        n_changed += sum(
            folder.read("scenario.yaml") not in (None, item.to_yaml())
            and not goes_on(folder, item, options)
            for folder, item in others
        )
    if n_changed:
        progress.note(f"earlier runs replaced, as something has changed: {n_changed}")
    unfinished = set(map(id, left))
    done = [scenario for scenario in scenarios if id(scenario) not in unfinished]
    for text in _done_on_other_data(done, options, datasets):
        progress.note(text)
    for scenario in done:
        progress.end(scenario, "done before")
    if not left:
        return []
    writers = [RunWriter(scenario, options, progress, kind) for scenario in left]
    try:
        _run(writers, datasets, options, compute)
    finally:  # a notebook lives on after a Ctrl-C, and must not keep its claims
        for writer in writers:
            writer.folder.release()
    return [
        f"{writer.folder.path}: {writer.failure}"
        for writer in writers
        if writer.failure is not None
    ]


def _on_other_data(
    scenarios: Sequence[AnyScenario], options: Options, datasets: DatasetCache
) -> int:
    """Return how many runs would be resumed, but began on other data.

    Raises:
        ScenarioError: If there are any, and the options do not have them run again.
    """
    faults: dict[str, list[Path]] = {}
    for scenario in scenarios:
        folder = run_folder(options.out, scenario)
        if not goes_on(folder, scenario, options):
            continue
        if there := other_data(folder, datasets.get(scenario)):
            text = (
                f"holds {there}: use those data, add --redo to replace it, or choose another --out"
            )
            faults.setdefault(text, []).append(folder.path)
    if not options.redo:
        refuse(faults)
    return sum(map(len, faults.values()))


def _done_on_other_data(
    done: Sequence[AnyScenario], options: Options, datasets: DatasetCache
) -> Iterator[str]:
    """Say which finished runs are on other data than now, where these data are in memory."""
    found: dict[str, list[str]] = {}
    for scenario in done:
        folder, dataset = run_folder(options.out, scenario), datasets.kept(scenario)
        if dataset is not None and (there := other_data(folder, dataset)):
            found.setdefault(there, []).append(str(folder.path))
    for there, paths in found.items():
        yield f"{named(paths, 1)}: done before, {there}; remove the folder to run it on these data"


def _run(
    writers: Sequence[RunWriter],
    datasets: DatasetCache,
    options: Options,
    compute: Compute | None,
) -> None:
    engine = writers[0].scenario.engine
    if compute is None and engine.kind == "ray":
        if engine.ray_address == "local":
            keep_others_out()
        from fl_testbed.engine.ray_runs import run_on_ray  # inline runs need no Ray

        run_on_ray(writers, datasets, engine)
        return
    if compute is None:  # else clients may be on other machines, with other devices
        check_device(writers[0].scenario, len(gpus()))
        compute = _on_flower(options) if engine.kind == "flower" else _inline
    for writer in writers:
        with writer.survived(), fresh_code(writer.scenario) as scenario:
            compute(writer, scenario, datasets.get(scenario))


def _inline(writer: RunWriter, scenario: AnyScenario, dataset: Dataset) -> None:
    writer.write(writer.kind.records(dataset, scenario, *writer.begin(dataset)))


def _on_flower(options: Options) -> Compute:
    keep_others_out()
    from fl_testbed.engine.flower_engine import run_on_flower  # imports Ray

    return lambda writer, scenario, dataset: run_on_flower(
        writer, scenario, dataset, options.data_dir
    )


def write_plan(scenarios: Sequence[AnyScenario], options: Options) -> list[str]:
    """Write down which runs each sweep has, in order, so that a comparison shows missing ones.

    Runs of earlier commands stay in the plan as long as their folders exist; those without a folder
    stay until the whole sweep is run again.

    Returns:
        A line for each sweep that keeps variants which this command does not have: they may have
        been renamed since.

    Raises:
        ScenarioError: If the file that is there is not a plan.
    """
    notes = []
    for name in dict.fromkeys(scenario.name for scenario in scenarios):
        folder = RunFolder(options.out / name)
        runs = [(item.variant, item.seed) for item in scenarios if item.name == name]
        with in_turn(folder.path):  # else two commands would undo each other's changes
            try:
                plan = json.loads(folder.read(PLAN) or '{"runs": []}')
                earlier = [(str(variant), int(seed)) for variant, seed in plan["runs"]]
            except (ValueError, TypeError, KeyError) as fault:
                text = f"is not the plan of a sweep ({fault}): remove it, or choose another --out"
                raise ScenarioError(Fault(str(folder.path / PLAN), "", text)) from None
            keeps_all, place = options.is_part, folder.path
            there = [run for run in earlier if keeps_all or place_of_run(place, *run).exists()]
            command, own = options.command, {variant for variant, _ in runs}
            if set(runs) < set(there):  # part of the sweep: keep the whole's order and command
                runs, command = there, plan.get("command", command)
            others = list(dict.fromkeys(variant for variant, _ in there if variant not in own))
            if others and not keeps_all:
                what = "compare and report show them too until their folders are removed"
                notes.append(
                    f"{place} has variants of earlier commands ({named(others, N_NAMED)}): {what}"
                )
            runs = list(dict.fromkeys([*runs, *there]))
            folder.write_json(PLAN, {"command": command, "runs": runs})
    return notes
