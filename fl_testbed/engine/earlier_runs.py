"""What earlier commands left in run folders, and which runs are therefore still to do."""

import errno
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from fl_testbed.data import Dataset
from fl_testbed.engine.environment import ENVIRONMENT
from fl_testbed.engine.options import Options
from fl_testbed.engine.run_folder import RunFolder, updates_file
from fl_testbed.scenario import AnyScenario, Fault, ScenarioError
from fl_testbed.scenario.leaves import leaves
from fl_testbed.scenario.naming import named
from fl_testbed.scenario.places import place_of_run
from fl_testbed.scenario.yaml_floats import Loader

N_NAMED = 3  # of the keys in which a scenario differs from the earlier one
NO_STATE = "its strategy has no state_dict, or Flower's engine keeps what its clients remember"


def run_folder(out: Path, scenario: AnyScenario) -> RunFolder:
    """Return the folder of a run."""
    return RunFolder(place_of_run(out / scenario.name, scenario.variant, scenario.seed))


def check_folders(
    scenarios: Sequence[AnyScenario], options: Options, *, claimed: bool = False
) -> list[AnyScenario]:
    """Return the scenarios that are still to run, in order.

    Args:
        scenarios: All runs of the command.
        options: How to run them.
        claimed: Whether this process has claimed the folders already.

    Raises:
        ScenarioError: If a folder cannot be made, or holds another scenario's run, or an unfinished
            one, and the options do not say what to do with it.
    """
    left: list[AnyScenario] = []
    faults: dict[str, list[Path]] = {}
    for scenario in scenarios:
        folder = run_folder(options.out, scenario)
        try:
            with suppress(FileNotFoundError, NotADirectoryError):
                (folder.path / f"{updates_file(0)}.partial").stat()  # its longest path
        except OSError as fault:
            text = f"cannot be a run's folder ({fault.strerror}): choose another --out"
            text += " or shorter names" * (fault.errno == errno.ENAMETOOLONG)
            faults.setdefault(text, []).append(folder.path)
            continue
        places = (folder.path, *folder.path.parents)
        place = next((p for p in places if os.path.lexists(p) and not p.is_dir()), None)
        if place is not None:
            text = "is a file, but a folder is needed: choose another --out, or move the file away"
            if not place.exists():
                text = f"is a link to {place.readlink()}, which is missing: choose another --out"
            faults.setdefault(text, []).append(place)
            continue
        there = folder.read("scenario.yaml")
        is_same = there == scenario.to_yaml()
        if is_same and folder.read("summary.json") is not None:
            continue
        left.append(scenario)
        text = None if there is None else _refusal(folder, there, is_same, scenario, options)
        if text is not None:  # where another command writes it, say that instead
            taken = None if claimed else folder.ownership.taken()
            faults.setdefault(taken or text, []).append(folder.path)
    refuse(faults)
    return left


def _refusal(
    folder: RunFolder, there: str, is_same: bool, scenario: AnyScenario, options: Options
) -> str | None:
    """Return why a run may not begin in a folder that holds another scenario's run, or this one
    unfinished or damaged, and which option would allow it; None if it may."""
    if goes_on(folder, scenario, options):
        return folder.damage()
    if is_same and not folder.has_checkpoint:
        return None
    if is_same and scenario.can_resume:
        return "holds an unfinished run: add --resume to continue it, or remove the folder"
    if options.redo:
        return None
    if is_same:
        text = f"holds an unfinished run that cannot be resumed, as {NO_STATE}"
        return f"{text}: add --redo to run it again"
    if not options.resume and folder.has_checkpoint and _begins(there, scenario):
        return "holds a run of fewer rounds: add --resume to continue after them"
    return (
        f"holds a run of another scenario{_apart(there, scenario.identity())}"
        f"{_why_lost(there, scenario)}: add --redo to replace it, or choose another --out"
    )


def refuse(faults: Mapping[str, Sequence[Path]]) -> None:
    """Raise ScenarioError if there are faults; of runs with the same fault, the first is named."""
    told = []
    for text, paths in faults.items():
        others = len(set(paths)) - 1
        more = f" (and {others} more run{'s' * (others > 1)})" * (others > 0)
        told.append(Fault(f"{paths[0]}{more}", "", text))
    if told:
        raise ScenarioError(*told)


def goes_on(folder: RunFolder, scenario: AnyScenario, options: Options) -> bool:
    """Whether the run that a folder holds is resumed: this one, or the same with fewer rounds."""
    asked = options.resume and scenario.can_resume and folder.has_checkpoint
    there = folder.read("scenario.yaml") or ""
    return asked and (there == scenario.to_yaml() or _begins(there, scenario))


def other_data(folder: RunFolder, dataset: Dataset) -> str | None:
    """Say on which other data a folder's run is; None if it is on these, or that is not known."""
    try:
        there = json.loads(folder.read(ENVIRONMENT) or "{}")["data"]["fingerprint"]
    except (ValueError, LookupError, TypeError):  # an earlier version's, or a file not ours
        return None
    if there == dataset.fingerprint:
        return None
    return f"a run on other data (fingerprint {there}, now {dataset.fingerprint})"


def _begins(there: str, scenario: AnyScenario) -> bool:
    """Whether the run there is the scenario's with fewer rounds, and has the same figures so
    far."""
    shorter = _of_fewer_rounds(there, scenario)
    return shorter is not None and shorter.may_be_longer


def _why_lost(there: str, scenario: AnyScenario) -> str:
    """Say why the run there cannot be resumed, if it is this scenario's with fewer rounds."""
    shorter = _of_fewer_rounds(there, scenario)
    if shorter is None:
        return ""
    if not shorter.can_resume:
        return f" and cannot be resumed, as {NO_STATE}"
    if not shorter.may_be_longer:
        return " and cannot be resumed, as its last round was evaluated only for being the last"
    return " and cannot be resumed, as it has no checkpoint"


def _of_fewer_rounds(there: str, scenario: AnyScenario) -> AnyScenario | None:
    """Return the same scenario with fewer rounds, if that is the one whose run is there."""
    found = re.search(r"^rounds: (\d+)$", there, re.MULTILINE)
    if found is None or int(found[1]) >= scenario.rounds:
        return None
    shorter = scenario.model_copy(update={"rounds": int(found[1])})
    return shorter if shorter.to_yaml() == there else None


def _apart(there: str, wanted: dict[str, Any]) -> str:
    """Name the first keys in which two scenarios differ; for changed code of a user's, its file."""
    other = dict(leaves(wanted))
    try:
        one = dict(leaves(yaml.load(there, Loader)))
    except (yaml.YAMLError, RecursionError):  # a file not ours
        return ""
    keys = [key for key in other | one if one.get(key, "") != other.get(key, "")]
    keys = [re.sub(r"(.+)\.sha256$", r"the file of \1", key) for key in keys]
    return f", which differs in {named(keys, N_NAMED)}" if keys else ""
