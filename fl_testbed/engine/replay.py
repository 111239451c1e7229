"""Applies other rules to the very updates that a run recorded: whom would each have heard?"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from fl_testbed.data import DataError, Federation
from fl_testbed.engine.datasets import DatasetCache, checked_federation
from fl_testbed.engine.earlier_runs import check_folders, other_data, refuse, run_folder
from fl_testbed.engine.errors import TakenError
from fl_testbed.engine.options import Options
from fl_testbed.engine.recorded_updates import replayed
from fl_testbed.engine.rounds import COLUMNS, client_row, holding_rows
from fl_testbed.engine.run_folder import UPDATES, RunFolder
from fl_testbed.engine.summary import described, heard_and_lifted
from fl_testbed.scenario import AnyScenario, Fault, Scenario, ScenarioError, load_scenarios
from fl_testbed.scenario.faults import EXPANSION_KEYS
from fl_testbed.scenario.loading import label_of_settings
from fl_testbed.scenario.own_specs import fresh_code
from fl_testbed.scenario.places import REPLAY
from strategies.aggregation import TooFewClientsError

REPLAYED = "replay_of.sha256"  # names the replayed run by a digest of its clients.csv
FREE = ("variant", "strategy", "record_updates")  # keys in which a replay may differ from its run


def replay(
    runs: Sequence[Path], settings: Sequence[str], options: Options
) -> list[tuple[Path, bool]]:
    """Replay runs under changed settings; replays that exist already are not made again.

    Settings that give several strategies, by ``variants`` or a ``sweep``, give a replay for each.

    Returns:
        The folder of each replay, and whether its ``clients.csv`` equals the run's, byte by byte.

    Raises:
        ScenarioError: If a run has recorded nothing or its record is broken, a setting changes more
            than the strategy, data are missing, or a replay's folder holds something else.
    """
    replays: list[tuple[Path, Scenario]] = []
    faults = []
    for folder in runs:
        if not (folder / UPDATES).is_dir():
            text = "has no recorded updates: run it again with record_updates=true and another name"
            if (folder / REPLAYED).exists():
                text = "is a replay, which has no recorded updates: give the run that it replays"
            faults.append(Fault(str(folder), "", text))
        else:
            replays += [(folder, scenario) for scenario in _changed(folder, settings)]
    if faults:
        raise ScenarioError(*faults)
    left = list(map(id, _check_targets(replays, options)))
    datasets = DatasetCache(options.data_dir)
    done = []
    for source, scenario in replays:
        if id(scenario) in left:
            with fresh_code(scenario) as own:
                _replay_one(source, own, options.out, datasets)
        folder = run_folder(options.out, scenario).path
        same = (folder / "clients.csv").read_bytes() == (source / "clients.csv").read_bytes()
        done.append((folder, same))
    return done


def _check_targets(replays: Sequence[tuple[Path, Scenario]], options: Options) -> list[AnyScenario]:
    """Return the scenarios whose replays have yet to be made."""
    sources: dict[Path, Path] = {}
    faults = []
    for source, scenario in replays:
        target = run_folder(options.out, scenario).path
        if (first := sources.setdefault(target, source)) is not source:
            text = f"its replay would go to {target}, as that of {first}: give each its own --out"
            faults.append(Fault(str(source), "", text))
    if faults:
        raise ScenarioError(*faults)
    left, others = check_folders([scenario for _, scenario in replays], options), []
    for source, scenario in replays:
        target = run_folder(options.out, scenario)
        if target.read(REPLAYED) in (None, _digest(source)):
            continue
        left.append(scenario)
        others.append(target.path)
    if others and not options.redo:
        text = "holds a replay of another run: add --redo to replace it, or choose another --out"
        refuse({text: others})
    return left


def _digest(source: Path) -> str:
    """Return what tells a run from others of the same scenario, made by other code or on another
    device: the digest of its ``clients.csv``."""
    return hashlib.sha256((source / "clients.csv").read_bytes()).hexdigest() + "\n"


def _changed(folder: Path, settings: Sequence[str]) -> list[Scenario]:
    """Return the scenarios of a run's replays, each named as a variant of its own."""
    path = folder / "scenario.yaml"
    (own,) = load_scenarios(path)
    changed = [_replayable(folder, own, scenario) for scenario in load_scenarios(path, settings)]
    names = [label_of_settings(settings) or "same"]
    if any(text.lstrip().startswith(EXPANSION_KEYS) for text in settings):
        names = [scenario.variant for scenario in changed]  # these settings name their variants
    return [
        scenario.model_copy(update={"variant": f"{own.variant},{REPLAY}{name}"})
        for scenario, name in zip(changed, names, strict=True)
    ]


def _replayable(folder: Path, own: AnyScenario, scenario: AnyScenario) -> Scenario:
    """Return a changed scenario; refuse it if more than the strategy has changed."""
    if not isinstance(own, Scenario) or not isinstance(scenario, Scenario):
        raise ScenarioError(
            Fault(str(folder), "", "holds a run on pooled data, in which clients send nothing")
        )
    before, after = (
        {k: v for k, v in s.identity().items() if k not in FREE} for s in (own, scenario)
    )
    faults = [
        Fault(
            "--set",
            key,
            "cannot be changed in a replay: its clients have trained, only the strategy can change",
        )
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]
    if faults:
        raise ScenarioError(*faults)
    return scenario


def _replay_one(source: Path, scenario: Scenario, out: Path, datasets: DatasetCache) -> None:
    federation = checked_federation(scenario, datasets, poison=False)
    if there := other_data(RunFolder(source), federation.dataset):
        raise ScenarioError(Fault(str(source), "", f"is {there}: replay it on those"))
    folder = run_folder(out, scenario)
    try:
        folder.ownership.claim()
    except TakenError as fault:
        raise ScenarioError(Fault(str(folder.path), "", str(fault))) from None
    try:
        _write(folder, source, scenario, federation)
    finally:
        folder.release()


def _write(folder: RunFolder, source: Path, scenario: Scenario, federation: Federation) -> None:
    folder.start({name: COLUMNS[name] for name in ("clients.csv", "holdings.csv")})
    folder.write("scenario.yaml", scenario.to_yaml())
    folder.write(REPLAYED, _digest(source))
    folder.append("holdings.csv", holding_rows(federation))
    restarts: list[int] = []
    n_skipped = 0
    try:
        for ledger in replayed(source, scenario, federation):
            rows = [client_row(federation, ledger.round_, entry) for entry in ledger.clients]
            folder.append("clients.csv", rows)
            if ledger.restarted:
                restarts.append(ledger.round_)
            if ledger.skipped:
                n_skipped += 1
                folder.log(f"round {ledger.round_} left the model unchanged: {ledger.skipped}")
    except (DataError, TooFewClientsError) as fault:
        raise ScenarioError(Fault(str(source), "", str(fault))) from None
    folder.close()
    restart = max(restarts, default=math.nan)
    heard = heard_and_lifted(folder.path, scenario, restart)
    figures = {**described(scenario), "skipped_rounds": n_skipped, **heard}
    folder.write_json("summary.json", figures)
