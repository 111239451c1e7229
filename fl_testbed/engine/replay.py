"""Other rules on the very updates that a run recorded: whom would each have heard?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fl_testbed.data import DataError
from fl_testbed.engine.launch import DatasetCache, checked_federation, run_folder
from fl_testbed.engine.recorded_updates import replayed
from fl_testbed.engine.rounds import client_row, described, heard_and_lifted
from fl_testbed.engine.run_folder import COLUMNS, UPDATES, RunFolder
from fl_testbed.metrics import read_table
from fl_testbed.scenario import Fault, Scenario, ScenarioError, load_scenarios
from fl_testbed.scenario.loading import label_of_settings
from strategies.aggregation import TooFewClientsError

FREE = ("variant", "strategy", "record_updates")  # what a replay may have otherwise than its run


def replay(
    runs: Sequence[Path], settings: Sequence[str], out: Path, data_dir: Path | None
) -> list[tuple[Path, bool]]:
    """Replay runs under changed settings.

    Returns:
        For each run the folder of the replay, and whether its ``clients.csv`` is the run's own.

    Raises:
        ScenarioError: If a run has recorded nothing or its record is broken, a setting changes more
            than the strategy, or there are no data.
    """
    scenarios, faults = [], []
    for folder in runs:
        if not (folder / UPDATES).is_dir():
            text = "has recorded no updates: run it with --set record_updates=true"
            faults.append(Fault(str(folder), "", text))
        else:
            scenarios.append(_changed(folder, settings))
    if faults:
        raise ScenarioError(faults)
    datasets = DatasetCache(data_dir)
    return [
        _replay_one(folder, scenario, out, datasets)
        for folder, scenario in zip(runs, scenarios, strict=True)
    ]


def _changed(folder: Path, settings: Sequence[str]) -> Scenario:
    path = folder / "scenario.yaml"
    (own,) = load_scenarios(path)
    scenario, *others = load_scenarios(path, settings)
    if others:
        text = f"gives {1 + len(others)} runs, and a replay is one: name a single value"
        raise ScenarioError([Fault("--set", "", text)])
    if not isinstance(own, Scenario) or not isinstance(scenario, Scenario):
        raise ScenarioError([Fault(str(folder), "", "holds no federated run: nothing was sent")])
    before, after = (
        {k: v for k, v in s.identity().items() if k not in FREE} for s in (own, scenario)
    )
    faults = [
        Fault("--set", key, "a replay can change the strategy alone: its clients have trained")
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]
    if faults:
        raise ScenarioError(faults)
    variant = f"{own.variant},replay={label_of_settings(settings) or 'same'}"
    return scenario.model_copy(update={"variant": variant})


def _replay_one(
    source: Path, scenario: Scenario, out: Path, datasets: DatasetCache
) -> tuple[Path, bool]:
    federation = checked_federation(scenario, datasets, poison=False)
    folder: RunFolder = run_folder(out, scenario)
    folder.write("scenario.yaml", scenario.to_yaml())
    folder.start({"clients.csv": COLUMNS["clients.csv"]})
    restarts: list[int] = []
    try:
        for ledger, _ in replayed(source, scenario, federation):
            rows = [client_row(federation, ledger.round_, entry) for entry in ledger.clients]
            folder.append("clients.csv", rows)
            if ledger.restarted:
                restarts.append(ledger.round_)
    except (DataError, TooFewClientsError) as fault:
        raise ScenarioError([Fault(str(source), "", str(fault))]) from None
    finally:
        folder.close()
    folder.write_json("summary.json", _summary(folder, scenario, source, restarts))
    same = (folder.path / "clients.csv").read_bytes() == (source / "clients.csv").read_bytes()
    return folder.path, same


def _summary(
    folder: RunFolder, scenario: Scenario, source: Path, restarts: list[int]
) -> dict[str, Any]:
    clients = read_table(folder.path / "clients.csv")
    return {
        **described(scenario),
        "replay_of": source.parent.name,
        **heard_and_lifted(scenario, clients, max(restarts, default=float("nan"))),
    }
