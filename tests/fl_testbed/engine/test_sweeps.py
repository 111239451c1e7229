"""A sweep survives one run's failure, says so, and finishes what is missing."""

import errno
import gc
import json
import os
import platform
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shutil import copytree
from threading import Thread
from unittest.mock import MagicMock

import pytest
from commands import SCENARIO, assert_same_results, patches, run, succeed, write_scenario

from fl_testbed.data import DataError, Dataset, Federation
from fl_testbed.engine import datasets as datasets_module
from fl_testbed.engine import federated
from fl_testbed.engine.datasets import DatasetCache, check_data, check_each, load_dataset
from fl_testbed.engine.earlier_runs import check_folders, run_folder
from fl_testbed.engine.errors import TakenError
from fl_testbed.engine.launch import launch, write_plan
from fl_testbed.engine.options import Options
from fl_testbed.engine.ownership import WRITER
from fl_testbed.engine.run_folder import CHECKPOINT, Record, RunFolder
from fl_testbed.engine.run_writer import RunWriter
from fl_testbed.scenario import AnyScenario, Fault, Scenario, ScenarioError, load_scenarios

VARIANTS = """
variants:
  mean: {}
  median: {strategy.aggregation: {kind: coordinate_median}}
  late: {rounds: 3}
"""
FAILS_IN_ROUND_2 = """
def patch(rounds):
    train = rounds.Run._train

    def failing(self, round_):
        if self._scenario.variant == "median" and round_ == 2:
            raise ArithmeticError("no median\\nof nothing")
        train(self, round_)

    rounds.Run._train = failing
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_scenario(folder, SCENARIO + VARIANTS)
    succeed("run", "scenario.yaml", "--out", "out", cwd=folder)
    return folder / "out"


def test_one_failure_ends_no_other_run(undisturbed: Path, tmp_path: Path) -> None:
    write_scenario(tmp_path, SCENARIO + VARIANTS)
    failing = patches(tmp_path, "fl_testbed.engine.rounds", FAILS_IN_ROUND_2)
    done = run("run", "scenario.yaml", "--out", "out", cwd=tmp_path, patches=failing)
    assert done.returncode == 1
    assert "the run failed after round 1: ArithmeticError: no median of nothing" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert_median_failed(tmp_path / "out")

    table = succeed("compare", "out", cwd=tmp_path)
    assert "0 of 1, 1 failed" in table
    assert "failed: median: seed 0: after round 1: ArithmeticError: no median of nothing" in table
    assert (tmp_path / "out" / "small" / "late" / "seed-0" / "summary.json").exists()

    said = succeed("run", "scenario.yaml", "--out", "out", "--resume", cwd=tmp_path)
    assert said.count("done before") == 2
    assert_same_results(undisturbed, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("failure.json"))
    assert "failed" not in succeed("compare", "out", cwd=tmp_path)


def assert_median_failed(out: Path) -> None:
    folder = out / "small" / "median" / "seed-0"
    reason = json.loads((folder / "failure.json").read_text())["reason"]
    assert reason == "after round 1: ArithmeticError: no median of nothing"
    events = (folder / "events.log").read_text()
    assert "sitecustomize.py" in events  # where it was raised
    assert "\x1b" not in events
    assert len((folder / "rounds.csv").read_text().splitlines()) == 3  # what was done is kept


def test_on_ray_too_one_failure_ends_no_other_run_and_a_full_disk_all(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scenario(tmp_path, SCENARIO + VARIANTS)
    failing = patches(tmp_path, "fl_testbed.engine.rounds", FAILS_IN_ROUND_2)
    monkeypatch.setattr(RunWriter, "record", losing("late", errno.ENOSPC))
    how = ("--engine", "ray", "--workers", 1, "--set", "engine.parallel=runs")
    done = run("run", "scenario.yaml", "--out", "out", *how, cwd=tmp_path, patches=failing)
    monkeypatch.undo()
    assert done.returncode == 1
    assert os.strerror(errno.ENOSPC) in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert_median_failed(tmp_path / "out")

    said = succeed("run", "scenario.yaml", "--out", "out", "--resume", cwd=tmp_path)
    assert said.count("done before") == 1
    assert_same_results(undisturbed, tmp_path / "out")


def test_a_piped_sweep_says_how_long_it_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    write_scenario(tmp_path, SCENARIO + VARIANTS)
    said = succeed("run", "scenario.yaml", "--set", "rounds=1", cwd=tmp_path)
    lines = [line for line in said.splitlines() if line.startswith("[")]
    assert [" left" in line for line in lines] == [True, True, False]


def test_compare_says_what_is_wrong_with_its_folders(undisturbed: Path, tmp_path: Path) -> None:
    done = run("compare", "nowhere", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "nowhere: no such folder\n")
    done = run("compare", ".", cwd=tmp_path)
    assert done.returncode == 2
    assert "holds no run" in done.stderr
    done = run("compare", undisturbed, "--baseline", "mena", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("--baseline: there is no variant 'mena', did you mean 'mean'?")


@pytest.mark.parametrize(
    ("command", "file", "content", "said"),
    [
        ("compare", "mean/seed-0/summary.json", "{", "is not JSON"),
        ("compare", "mean/seed-0/summary.json", "[" * 10**5, "is not JSON"),
        ("compare", "mean/seed-0/summary.json", "[]", "needs a mapping"),
        ("compare", "mean/seed-0/summary.json", '{"seed": null}', "is not what a run writes"),
        ("compare", "mean/seed-0/summary.json", f'{{"a": {"9" * 400}}}', "is not what a run"),
        ("compare", "sweep.json", "{", "is not JSON"),
        ("compare", "sweep.json", '{"runs": [[1]]}', "is not what a run writes"),
        ("report", "mean/seed-0/environment.json", "[]", "needs a mapping"),
        ("report", "mean/seed-0/scenario.yaml", "a: [", "is not YAML"),
        ("report", "mean/seed-0/scenario.yaml", "strategy: 3", "is not what a run writes"),
        ("report", "mean/seed-0/clients.csv", "\0" * 100, "is not what a run writes"),
    ],
)
def test_a_broken_file_of_a_run_is_one_readable_line(
    undisturbed: Path, tmp_path: Path, command: str, file: str, content: str, said: str
) -> None:
    copytree(undisturbed, tmp_path / "out")
    (tmp_path / "out" / "small" / file).write_text(content)
    done = run(command, "out/small", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"out/small/{file}: {said}")
    assert len(done.stderr.splitlines()) == 1


def test_a_finished_run_lets_go_of_its_model(tmp_path: Path, monkeypatch) -> None:
    models: list[weakref.ref] = []
    alive = []
    finish = RunFolder.finish

    def noting(folder, state, summary, **how):
        models.extend(weakref.ref(tensor) for tensor in state.values())
        finish(folder, state, summary, **how)

    monkeypatch.setattr(RunFolder, "finish", noting)
    progress = MagicMock()
    progress.begin.side_effect = lambda *_: alive.append([m for m in models if m() is not None])
    write_scenario(tmp_path, SCENARIO)
    scenarios = load_scenarios(tmp_path / "scenario.yaml", ["rounds=1", "sweep.seed=[0, 1]"])
    launch(scenarios, Options(tmp_path / "out", None, ""), progress)
    assert len(models) > 0
    assert alive == [[], []]


def test_a_run_that_is_done_goes_on_to_more_rounds(tmp_path: Path) -> None:
    path = write_scenario(tmp_path)
    jtt = "strategy.reweighting={kind: jtt, n_flagged: 2, factor: 2, warm_up_rounds: 1}"

    def runs(out: str, rounds: int, *, resume: bool = False) -> None:
        scenarios = load_scenarios(path, [f"rounds={rounds}", jtt, "engine.checkpoint_every=4"])
        summary, progress = tmp_path / out / "small/default/seed-0/summary.json", MagicMock()
        progress.round.side_effect = lambda *_: done.append(summary.exists())
        assert launch(scenarios, Options(tmp_path / out, None, "", resume), progress) == []

    done: list[bool] = []
    runs("out", 2)
    with pytest.raises(
        ScenarioError, match="holds a run of fewer rounds: add --resume to continue"
    ):
        runs("out", 3)
    runs("out", 3, resume=True)
    assert done == [False] * 4  # else a run cut off now would count as done
    runs("whole", 3)
    assert_same_results(tmp_path / "whole", tmp_path / "out")
    (tmp_path / "out/small/default/seed-0" / CHECKPOINT).unlink()
    with pytest.raises(
        ScenarioError, match="in rounds and cannot be resumed, as it has no checkpoint: add"
    ):
        runs("out", 4, resume=True)
    flower = "strategy={kind: flower, path: 'flwr.serverapp.strategy:FedAvg'}"
    for keys, why in (
        (["evaluation.every=3"], "its last round was evaluated"),
        ([flower], "its strategy has no state_dict"),
    ):
        (shorter,) = load_scenarios(path, ["rounds=4", *keys])
        folder = run_folder(tmp_path, shorter)
        folder.write("scenario.yaml", shorter.to_yaml())
        folder.write(CHECKPOINT, "")
        with pytest.raises(ScenarioError, match=f"in rounds and cannot be resumed, as {why}"):
            check_folders(
                load_scenarios(path, ["rounds=6", *keys]), Options(tmp_path, None, "", True)
            )


def test_a_run_goes_on_with_the_data_that_it_began_on_alone(tmp_path: Path, monkeypatch) -> None:
    path, progress = write_scenario(tmp_path), MagicMock()
    folder = tmp_path / "out/small/default/seed-0"

    def runs(rounds: int, *more: str, **how: bool) -> None:
        scenarios = load_scenarios(path, [f"rounds={rounds}", *more])
        launch(scenarios, Options(tmp_path / "out", None, "", **how), progress)

    runs(1)
    data = json.loads((folder / "environment.json").read_text())["data"]
    assert (data["train"], data["test"], data["of"]) == (1397, 400, {"kind": "digits", "seed": 0})
    monkeypatch.setattr(Dataset, "fingerprint", "another")
    runs(1, resume=True)  # what is done is done
    runs(1, "variants={default: {}, median: {strategy.aggregation: {kind: coordinate_median}}}")
    told = f"{folder}: done before, a run on other data (fingerprint {data['fingerprint']}, now"
    assert [told in text for (text,), _ in progress.note.call_args_list] == [False, True, False]
    begun_on = (
        rf"holds a run on other data \(fingerprint {data['fingerprint']}, now another\): use those"
    )
    with pytest.raises(ScenarioError, match=begun_on):
        runs(2, resume=True)
    runs(2, resume=True, redo=True)
    progress.note.assert_any_call("earlier runs replaced, as something has changed: 1")
    assert "resumed" not in (folder / "events.log").read_text()


@pytest.mark.parametrize(("told", "answers"), [("begin", ()), ("round", (None, None, None))])
def test_a_run_that_is_cut_off_goes_on_from_its_checkpoint_and_without_one_begins_again(
    undisturbed: Path, tmp_path: Path, told: str, answers: tuple[None, ...]
) -> None:
    path = write_scenario(tmp_path, SCENARIO + VARIANTS)
    options, progress = Options(tmp_path, None, "", resume=True), MagicMock()
    getattr(progress, told).side_effect = (*answers, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):  # with a checkpoint of round 0 and rows up to round 3
        launch(load_scenarios(path, ["engine.checkpoint_every=15"])[:1], options, progress)
    assert launch(load_scenarios(path)[:1], options, MagicMock()) == []
    assert_same_results(undisturbed / "small/mean", tmp_path / "small/mean")
    events = (tmp_path / "small/mean/seed-0/events.log").read_text()
    assert ("resumed after round 0" in events) == (told == "round")


def test_a_second_command_on_the_same_run_stops_and_leaves_it_to_the_first(tmp_path: Path) -> None:
    (scenario,) = load_scenarios(write_scenario(tmp_path))
    progress, out = MagicMock(), tmp_path / "out"
    both, done = ("--resume", "--set", "sweep.seed=[0, 1]"), []

    def meanwhile(scenario: AnyScenario, round_: int, evaluation: object) -> None:
        if round_ == 2:
            done.append(run("run", "scenario.yaml", "--out", "out", *both, cwd=tmp_path))

    progress.round.side_effect = meanwhile
    assert launch([scenario], Options(out, None, ""), progress) == []
    (second,) = done
    assert second.returncode == 1
    assert (out / "small/default/seed-1/summary.json").exists()
    assert not (out / "small/default/seed-0/failure.json").exists()
    who = f"process {os.getpid()} on {platform.node()}"
    by = f"is being written by another command ({who}): let it finish, or stop it"
    assert f"out/small/default/seed-0: {by}" in second.stderr
    assert "Traceback" not in second.stderr
    assert not RunFolder(out / "small/default/seed-0").ownership.taken()  # nobody holds it any more


def test_of_machines_that_begin_together_where_locks_do_not_reach_the_first_has_the_run(
    tmp_path: Path,
) -> None:
    (scenario,) = load_scenarios(write_scenario(tmp_path))
    options = Options(tmp_path / "out", None, "")
    folder = run_folder(options.out, scenario)
    folder.log(f"{WRITER}12 on elsewhere")
    (failure,) = launch([scenario], options, MagicMock())
    assert "by another command (process 12 on elsewhere)" in failure
    assert [left.name for left in folder.path.iterdir()] == ["events.log"]
    ours = RunFolder(tmp_path / "ours")
    ours.ownership.sign()
    ours.log(f"{WRITER}12 on elsewhere")
    ours.ownership.check()
    ahead = RunFolder(tmp_path / "of_a_machine_whose_clock_is_ahead")
    ahead.write("events.log", f"2999-01-01T00:00:00+00:00 {WRITER}12 on elsewhere\n")
    ahead.ownership.sign()


def test_a_run_that_another_machine_has_begun_where_locks_do_not_reach_is_left_to_it(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("fl_testbed.engine.ownership.TOGETHER", timedelta(-1))
    (scenario,) = load_scenarios(write_scenario(tmp_path))
    options, progress = Options(tmp_path / "out", None, ""), MagicMock()
    theirs = run_folder(options.out, scenario)

    def meanwhile(scenario: AnyScenario, round_: int, evaluation: object) -> None:
        if round_ == 1:
            theirs.log(f"{WRITER}12 on elsewhere")

    progress.round.side_effect = meanwhile
    (failure,) = launch([scenario], options, progress)
    assert "by another command (process 12 on elsewhere)" in failure
    late = RunWriter(scenario, options, progress, federated)
    late.folder.ownership.claim()
    with pytest.raises(TakenError):
        late.finish()
    late.fail(ValueError(), "")
    assert not {path.name for path in theirs.path.iterdir()} & {"summary.json", "failure.json"}
    assert (theirs.path / "timings.csv").read_text().count("\n") == 1 + 2  # of rounds 0 and 1


def test_what_is_done_is_not_checked_again(tmp_path: Path, monkeypatch) -> None:
    scenarios = load_scenarios(write_scenario(tmp_path), ["rounds=1", "sweep.seed=[0, 1]"])
    options, seeds = Options(tmp_path / "out", None, ""), []
    launch(scenarios[:1], options, MagicMock())
    check = federated.check

    def noting(checked, datasets):
        seeds.extend(scenario.seed for scenario in checked)
        check(checked, datasets)

    monkeypatch.setattr(federated, "check", noting)
    progress = MagicMock()
    launch(scenarios, options, progress)
    assert seeds == [1]
    assert [call.args[1] for call in progress.end.call_args_list] == ["done before", "done"]


@pytest.mark.parametrize("finished", [True, False])
def test_what_another_command_ran_meanwhile_is_left_as_it_is(
    tmp_path: Path, monkeypatch, finished: bool
) -> None:
    scenarios = load_scenarios(write_scenario(tmp_path), ["rounds=1", "sweep.seed=[0, 1]"])
    options, folder = Options(tmp_path / "out", None, ""), tmp_path / "out/small/default/seed-0"
    check = federated.check

    def meanwhile(checked, datasets):  # after the folders were looked at
        monkeypatch.setattr(federated, "check", check)
        launch(scenarios[:1], options, MagicMock())
        if not finished:
            (folder / "summary.json").unlink()
            RunFolder(folder).write_bytes(CHECKPOINT, b"theirs")
        (folder / "model.safetensors").write_bytes(b"theirs")
        check(checked, datasets)

    monkeypatch.setattr(federated, "check", meanwhile)
    progress = MagicMock()
    failures = launch(scenarios, options, progress)
    unfinished = "holds an unfinished run: add --resume to continue it, or remove the folder"
    assert failures == ([] if finished else [f"{folder}: {unfinished}"])
    told = "done before" if finished else unfinished
    assert [call.args[1] for call in progress.end.call_args_list] == [told, "done"]
    kept = "model.safetensors" if finished else CHECKPOINT
    assert (folder / kept).read_bytes() == b"theirs"


@pytest.mark.parametrize("changed", [[], ["training.lr=0.2"]])
def test_no_run_is_to_be_removed_or_made_again_while_another_command_writes_it(
    tmp_path: Path, changed: list[str]
) -> None:
    path, options = write_scenario(tmp_path), Options(tmp_path / "out", None, "")
    (begun,), wanted = load_scenarios(path), load_scenarios(path, changed)
    theirs = run_folder(options.out, begun)
    theirs.ownership.claim()
    theirs.log(f"{WRITER}12 on ours")
    theirs.log(f"{WRITER}345 on ours")
    theirs.write("scenario.yaml", begun.to_yaml())
    theirs.write(CHECKPOINT, "")
    by = r"is being written by another command \(process 345 on ours\): let it finish, or stop it$"
    with pytest.raises(ScenarioError, match=by):
        check_folders(wanted, options)
    theirs.release()
    with pytest.raises(ScenarioError, match="holds a"):
        check_folders(wanted, options)


def test_what_many_folders_hold_is_said_once_with_the_first_of_them(tmp_path: Path) -> None:
    path, options = write_scenario(tmp_path), Options(tmp_path / "out", None, "")
    for scenario in load_scenarios(path, ["sweep.seed=[0, 1, 2]"]):
        folder = run_folder(options.out, scenario)
        folder.write("scenario.yaml", scenario.to_yaml())
        folder.write("summary.json", "{}")
    (wanted, *others) = load_scenarios(path, ["sweep.seed=[0, 1, 2]", "training.lr=0.2"])
    with pytest.raises(ScenarioError) as refused:
        check_folders([wanted, *others], options)
    (fault,) = refused.value.faults
    assert fault.where == f"{run_folder(options.out, wanted).path} (and 2 more runs)"
    assert fault.text.startswith("holds a run of another scenario, which differs in training.lr:")


@pytest.mark.parametrize("text", ["rounds: 0x_", "[" * 10**5, "rounds: 2001-99-99"])
def test_what_is_no_scenario_any_more_is_another(tmp_path: Path, text: str) -> None:
    (scenario,) = load_scenarios(write_scenario(tmp_path))
    run_folder(tmp_path, scenario).write("scenario.yaml", text)
    with pytest.raises(ScenarioError, match="holds a run of another scenario: add --redo"):
        check_folders([scenario], Options(tmp_path, None, ""))


def test_a_run_that_fails_before_it_begins_leaves_a_folder_that_another_command_has(
    tmp_path: Path, monkeypatch
) -> None:
    scenarios = load_scenarios(write_scenario(tmp_path), ["rounds=1"])
    theirs = RunFolder(tmp_path / "out/small/default/seed-0")

    def meanwhile(checked, datasets):  # after the folders were looked at
        theirs.ownership.claim()
        monkeypatch.setattr(DatasetCache, "get", MagicMock(side_effect=DataError("no files")))

    monkeypatch.setattr(federated, "check", meanwhile)
    failures = launch(scenarios, Options(tmp_path / "out", None, ""), MagicMock())
    assert failures == [f"{theirs.path}: the run failed: DataError: no files"]
    assert [file.name for file in theirs.path.iterdir()] == ["events.log"]
    assert theirs.read("events.log") == ""
    theirs.release()


def test_a_run_in_which_every_client_failed_has_failed_and_so_it_has_when_it_goes_on(
    tmp_path: Path,
) -> None:
    write_scenario(tmp_path)
    hasty = ("run", "scenario.yaml", "--set", "rounds=1", "--set", "engine.client_timeout_s=1.0e-6")
    for arguments in (hasty, (*hasty, "--resume")):
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("runs/small/default/seed-0: the run failed after round 1: no reply")
    folder = tmp_path / "runs/small/default/seed-0"
    assert (folder / "failure.json").exists()
    assert not (folder / "summary.json").exists()


def losing(variant: str, number: int) -> Callable[[RunWriter, Record], None]:
    """Return a ``RunWriter.record`` that fails in round 2 of a variant."""
    record = RunWriter.record

    def failing(self: RunWriter, content: Record) -> None:
        if self.scenario.variant == variant and content.round_ == 2:
            raise OSError(number, os.strerror(number))
        record(self, content)

    return failing


@pytest.mark.parametrize(
    ("number", "switches", "again"),
    [(errno.EACCES, [], "--resume"), (errno.ENOSPC, ["--redo"], "--resume --redo")],
)
def test_a_folder_that_cannot_be_written_ends_no_other_run_and_a_full_disk_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    switches: list[str],
    again: str,
) -> None:
    write_scenario(tmp_path, SCENARIO + VARIANTS)
    monkeypatch.setattr(RunWriter, "record", losing("median", number))
    done = run("run", "scenario.yaml", *switches, cwd=tmp_path)
    assert done.returncode == 1
    assert os.strerror(number) in done.stderr
    finished = (tmp_path / "runs/small/late/seed-0/summary.json").exists()
    assert finished == (number == errno.EACCES)
    kept = f"up to the last checkpoint are kept, and {again} continues" in done.stderr
    assert kept == (number == errno.ENOSPC)


def test_a_sweep_of_seeds_keeps_two_datasets_and_reads_each_once_to_check_and_once_to_run(
    tmp_path: Path, monkeypatch
) -> None:
    write_scenario(tmp_path, SCENARIO + VARIANTS)
    scenarios = load_scenarios(tmp_path / "scenario.yaml", ["rounds=1", "sweep.seed=[0, 1, 2, 3]"])
    kept: list[weakref.ref] = []
    seeds, alive = [], []

    def noting(scenario, data_dir):
        seeds.append(scenario.seed)
        gc.collect()
        alive.append(sum(dataset() is not None for dataset in kept))
        dataset = load_dataset(scenario, data_dir)
        kept.append(weakref.ref(dataset))
        return dataset

    monkeypatch.setattr(datasets_module, "load_dataset", noting)
    assert launch(scenarios, Options(tmp_path / "out", None, ""), MagicMock()) == []
    assert seeds == [0, 1, 2, 3, 0, 1, 2, 3]
    assert max(alive) < 2  # besides the one that is read


def test_one_seed_of_a_variant_tries_the_poison(tmp_path: Path, monkeypatch) -> None:
    write_scenario(tmp_path, SCENARIO + VARIANTS)
    loaded = load_scenarios(tmp_path / "scenario.yaml", ["sweep.seed=[0, 1, 2]"])
    seeds = []
    shard = Federation.shard

    def noting(self, client):
        seeds.append(self.seed)
        return shard(self, client)

    monkeypatch.setattr(Federation, "shard", noting)
    check_data([s for s in loaded if isinstance(s, Scenario)], DatasetCache(None))
    assert seeds == [0, 0, 0]


@pytest.mark.parametrize(
    ("poison", "fault"),
    [
        (
            "{kind: dirty_label_backdoor, target: 0, trigger: {kind: patch, size: 9}}",
            "a 9 × 9 patch with margin 0 does not fit into 8 × 8 pixels",
        ),
        (
            "{kind: gradient_matching, source: 1, target: 0, n_victims: 2000}",
            "test examples of class 1, got 2000",
        ),
    ],
)
def test_a_poison_that_nobody_has_is_tried_on_what_it_is_measured_on(
    tmp_path: Path, poison: str, fault: str
) -> None:
    changes = [f"poison={poison}", "clients.poisoned=0", "attack={kind: none}"]
    loaded = load_scenarios(write_scenario(tmp_path, SCENARIO), changes)
    with pytest.raises(ScenarioError) as error:
        check_data([s for s in loaded if isinstance(s, Scenario)], DatasetCache(None))
    assert fault in str(error.value)


def test_variants_that_the_data_do_not_suffice_for_are_named_where_others_run(
    tmp_path: Path,
) -> None:
    many = "{clients.examples_each: 999}"
    for variants, named in ((f"a: {{}}, b: {many}", ", b"), (f"b: {many}", "")):
        changes = [f"variants={{{variants}}}", "sweep.seed=[0, 1]"]
        loaded = load_scenarios(write_scenario(tmp_path, SCENARIO), changes)
        with pytest.raises(ScenarioError) as error:
            check_data([s for s in loaded if isinstance(s, Scenario)], DatasetCache(None))
        (line,) = str(error.value).splitlines()
        assert f"scenario.yaml:4{named}: dataset: " in line


def test_seeds_that_the_data_do_not_suffice_for_are_named_where_the_first_runs(
    tmp_path: Path,
) -> None:
    changes = ["variants={a: {}, b: {}}", "sweep.seed=[0, 1, 2]"]
    loaded = load_scenarios(write_scenario(tmp_path, SCENARIO), changes)

    def check(scenario: AnyScenario) -> None:
        if scenario.seed > 0:
            raise ScenarioError(Fault("small", "dataset", "too few"))

    with pytest.raises(ScenarioError, match=r"^small, seed 1, 2: dataset: too few$"):
        check_each(loaded, check)


def test_commands_that_start_together_are_all_in_the_plan(tmp_path: Path, monkeypatch) -> None:
    scenarios = load_scenarios(write_scenario(tmp_path), ["sweep.seed=[0, 1]"])
    options = Options(tmp_path, None, "")
    for scenario in scenarios:
        run_folder(tmp_path, scenario).path.mkdir(parents=True)
    write_json, second = (
        RunFolder.write_json,
        Thread(target=write_plan, args=(scenarios[1:], options)),
    )

    def slowly(self, name, value):
        monkeypatch.setattr(RunFolder, "write_json", write_json)
        second.start()
        second.join(timeout=1.0)  # where it may write at once, it has
        write_json(self, name, value)

    monkeypatch.setattr(RunFolder, "write_json", slowly)
    write_plan(scenarios[:1], options)
    second.join()
    plan = json.loads((tmp_path / "small/sweep.json").read_text())
    assert sorted(seed for _, seed in plan["runs"]) == [0, 1]


def test_a_command_for_a_part_of_a_sweep_leaves_its_plan_as_it_is(tmp_path: Path) -> None:
    scenarios = load_scenarios(write_scenario(tmp_path), ["sweep.seed=[0, 1]"])
    for scenario in scenarios:
        run_folder(tmp_path, scenario).path.mkdir(parents=True)
    for chosen, command in ((scenarios, "first"), (scenarios, "whole"), (scenarios[1:], "part")):
        assert write_plan(chosen, Options(tmp_path, None, command)) == []
    plan = json.loads((tmp_path / "small/sweep.json").read_text())
    assert plan == {"command": "whole", "runs": [["default", 0], ["default", 1]]}


def test_what_a_whole_sweep_did_not_come_to_stays_planned_until_it_is_run_again(
    tmp_path: Path,
) -> None:
    scenarios = load_scenarios(write_scenario(tmp_path), ["sweep.seed=[0, 1]"])
    last = scenarios[1:]
    for chosen, is_part, planned in ((scenarios, False, 2), (last, True, 2), (last, False, 1)):
        write_plan(chosen, Options(tmp_path, None, "", is_part=is_part))
        plan = json.loads((tmp_path / "small/sweep.json").read_text())
        assert len(plan["runs"]) == planned


@pytest.mark.parametrize("new", ["", "new: {rounds: 3}"])
def test_variants_that_are_in_the_file_no_more_are_said_to_stay(tmp_path: Path, new: str) -> None:
    path = write_scenario(tmp_path, SCENARIO + VARIANTS)
    before, options = load_scenarios(path, ["sweep.seed=[0, 1]"]), Options(tmp_path, None, "")
    write_plan(before, options)
    for scenario in before:
        run_folder(tmp_path, scenario).path.mkdir(parents=True)
    after = load_scenarios(path, [f"variants={{mean: {{}}, {new}}}"])
    assert write_plan(after, replace(options, is_part=True)) == []  # others are only left out
    (note,) = write_plan(after, options)
    assert "small has variants of earlier commands (median, late): compare and report" in note
    plan = json.loads((tmp_path / "small/sweep.json").read_text())
    assert plan["runs"][: len(after)] == [[item.variant, item.seed] for item in after]


@pytest.mark.parametrize("torn", ["{", "[]", '{"runs": [3]}', '{"runs": [[1, "a"]]}'])
def test_a_plan_that_is_none_is_a_fault(tmp_path: Path, torn: str) -> None:
    write_scenario(tmp_path)
    (tmp_path / "runs/small").mkdir(parents=True)
    (tmp_path / "runs/small/sweep.json").write_text(torn)
    done = run("run", "scenario.yaml", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "sweep.json: is not the plan of a sweep" in line
    assert (tmp_path / "runs/small/sweep.json").read_text() == torn
