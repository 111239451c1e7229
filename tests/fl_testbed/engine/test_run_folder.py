"""A run's files by themselves."""

import math
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file, save_file

from fl_testbed.engine import run_folder
from fl_testbed.engine.client_work import attempt
from fl_testbed.engine.ownership import Ownership, in_turn
from fl_testbed.engine.run_folder import CHECKPOINT, Record, RunFolder

COLUMNS = {"rounds.csv": ("round", "loss")}


def test_a_run_that_another_version_began_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(COLUMNS)
    folder.record(Record(0, {"rounds.csv": [(0, 2.5)]}, {"arrays/w": torch.zeros(2)}, None))
    folder.close()
    with pytest.raises(ValueError, match=r"rounds.csv has other columns, as another version"):
        RunFolder(tmp_path).resume({"rounds.csv": ("round", "accuracy")})
    with pytest.raises(
        ValueError, match=r"groups.csv is not in the checkpoint, as another version"
    ):
        RunFolder(tmp_path).resume({**COLUMNS, "groups.csv": ("round", "group")})


def test_of_a_run_that_gave_way_no_table_is_left(tmp_path: Path) -> None:
    for tables in ({"rounds.csv": ["round"], "scores.csv": ["score"]}, {"rounds.csv": ["n"]}):
        folder = RunFolder(tmp_path)
        folder.start(tables)
        folder.close()
        assert {file.name for file in tmp_path.iterdir()} == set(tables)


def test_a_table_that_lost_rows_is_not_filled_up(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(COLUMNS)
    folder.record(Record(0, {"rounds.csv": [(0, 2.5)]}, {"arrays/w": torch.zeros(2)}, None))
    folder.close()
    assert RunFolder(tmp_path).resume(COLUMNS)[0] == 0
    (tmp_path / "rounds.csv").write_text("round,loss\n")
    with pytest.raises(ValueError, match="is shorter than its checkpoint says"):
        RunFolder(tmp_path).resume(COLUMNS)
    (tmp_path / "rounds.csv").unlink()
    with pytest.raises(ValueError, match="is missing, but its checkpoint needs it"):
        RunFolder(tmp_path).resume(COLUMNS)


@pytest.mark.parametrize(
    ("row", "line"),
    [("1,9.5", ""), *((odd, " (see line 3)") for odd in ("1;2.5", "\0" * 5, "9" * 150_000))],
)
def test_a_row_that_was_damaged_is_found_before_anything_is_changed(
    tmp_path: Path, row: str, line: str
) -> None:
    folder = RunFolder(tmp_path)
    folder.start(COLUMNS)
    for round_ in range(3):  # the sums go on over a resume
        rows = {"rounds.csv": [(round_, 2.5)]}
        folder.record(Record(round_, rows, {"arrays/w": torch.zeros(2)}, None))
        folder.close()
        assert folder.damage() is None
        folder.resume(COLUMNS)
    folder.close()
    table = tmp_path / "rounds.csv"
    table.write_text(damaged := table.read_text().replace("1,2.5", row))
    why = f"rounds.csv has changed since the run wrote it{line}: remove the folder to run it again"
    assert folder.damage() == why
    with pytest.raises(ValueError, match="has changed"):
        RunFolder(tmp_path).resume(COLUMNS)
    assert table.read_text() == damaged


def test_a_checkpoint_of_an_earlier_version_has_no_sums_and_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "rounds.csv").write_text("round,loss\n0,2.5\n")
    (tmp_path / "checkpoint").mkdir()
    earlier = {"position": '{"round": 0, "bytes": {"rounds.csv": 17}}'}
    save_file({"arrays/w": torch.zeros(2)}, tmp_path / CHECKPOINT, metadata=earlier)
    folder = RunFolder(tmp_path)
    assert folder.resume(COLUMNS)[0] == 0
    folder.record(Record(1, {"rounds.csv": [(1, 2.5)]}, {"arrays/w": torch.zeros(2)}, None))
    assert folder.damage() is None


@pytest.mark.parametrize("may_start_threads", [True, False])  # False: at a limit of the system
def test_a_run_that_is_done_has_its_rows_on_the_disk(
    may_start_threads: bool, tmp_path: Path, monkeypatch
) -> None:
    if not may_start_threads:
        refused = MagicMock(side_effect=RuntimeError("can't start new thread"))
        monkeypatch.setattr(run_folder, "SYNCING", ThreadPoolExecutor(1))
        monkeypatch.setattr(Thread, "start", refused)
    synced = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        synced.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, size))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    folder = RunFolder(tmp_path)
    folder.ownership.claim()
    folder.start(COLUMNS)
    folder.record(Record(0, {"rounds.csv": [(0, 2.5)]}, {"arrays/w": torch.zeros(2)}, None))
    assert ("rounds.csv", (tmp_path / "rounds.csv").stat().st_size) in synced  # as it counts on
    folder.close()
    folder.finish({"arrays/w": torch.zeros(2)}, {})
    names = [name for name, _ in synced]
    assert names.index("rounds.csv") < names.index("summary.json.partial")
    assert dict(synced)["rounds.csv"] == (tmp_path / "rounds.csv").stat().st_size
    assert not folder.ownership.is_held


def test_what_jobs_of_a_sweep_write_at_once_is_one_job_s_and_whole(
    tmp_path: Path, monkeypatch
) -> None:
    sync = run_folder._sync

    def meanwhile(*files: Any) -> None:  # on another machine, where a file system has no locks
        monkeypatch.setattr(run_folder, "_sync", sync)
        RunFolder(tmp_path).write("sweep.json", "a longer plan")
        sync(*files)

    monkeypatch.setattr(run_folder, "_sync", meanwhile)
    RunFolder(tmp_path).write("sweep.json", "a plan")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [
        ("sweep.json", "a plan")
    ]


@pytest.mark.parametrize(
    ("n", "may_go_on", "kept"), [(12, True, True), (13, True, False), (12, False, False)]
)
def test_a_run_that_is_done_keeps_what_more_rounds_need_if_it_is_not_large(
    tmp_path: Path, n: int, may_go_on: bool, kept: bool
) -> None:
    state = {"arrays/w": torch.ones(2), "client/0": torch.zeros(n)}
    folder = RunFolder(tmp_path)
    folder.start(COLUMNS)
    folder.record(Record(2, {"rounds.csv": [(2, 2.5)]}, state, None))
    folder.close()
    folder.finish(state, {}, may_go_on=may_go_on)
    assert folder.has_checkpoint == kept
    if kept:
        assert list(load_file(tmp_path / CHECKPOINT)) == ["client/0"]  # the model is kept once
        round_, again = folder.resume(COLUMNS)
        assert round_ == 2
        assert {name: len(tensor) for name, tensor in again.items()} == {
            "arrays/w": 2,
            "client/0": n,
        }
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()  # as Windows wants it


def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(COLUMNS)
    folder.record(Record(0, {"rounds.csv": [(0, 2.5)]}, {"arrays/w": torch.zeros(2)}, None))
    folder.close()
    checkpoint = tmp_path / "checkpoint" / "state.safetensors"
    whole = checkpoint.read_bytes()
    for damaged in (
        b"",
        b"\0" * 200,
        whole[:-3],
        whole.replace(b"position", b"petition"),
        whole.replace(b"round", b"sound"),
    ):
        checkpoint.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"state.safetensors is not a complete checkpoint .* remove"
        ):
            RunFolder(tmp_path).resume(COLUMNS)


def test_a_table_that_is_no_text_any_more_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(COLUMNS)
    folder.record(Record(0, {"rounds.csv": [(0, 2.5)]}, {"arrays/w": torch.zeros(2)}, None))
    folder.close()
    (tmp_path / "rounds.csv").write_bytes(b"\xff" * 99)
    with pytest.raises(ValueError, match=r"rounds.csv has changed.* remove"):
        RunFolder(tmp_path).resume(COLUMNS)


@pytest.mark.parametrize("end", ["\0\0\0", "2026-11-30T00:00:00+00:00 resu", "2026-11-3"])
def test_a_log_that_was_torn_says_still_who_writes_the_run(tmp_path: Path, end: str) -> None:
    (tmp_path / "events.log").write_text(
        f"2026-11-30T00:00:00+00:00 written by process 1 on another\n{end}"
    )
    Ownership(tmp_path).sign()  # no TakenError


def test_to_ask_who_writes_a_run_neither_takes_it_nor_gives_it_up(tmp_path: Path) -> None:
    ownership = RunFolder(tmp_path).ownership
    assert ownership.taken() is None
    assert not ownership.is_held
    ownership.claim()
    assert ownership.taken() is None
    assert ownership.is_held


def test_a_file_that_is_no_text_any_more_is_there_and_is_another(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_bytes(b"name: \xff")
    assert RunFolder(tmp_path).read("scenario.yaml") not in (None, "name: ")


def test_a_cell_has_nine_digits_and_nothing_where_there_is_no_number(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start({"table.csv": ("number", "text")})
    folder.append("table.csv", [(2 / 3, "a, b"), (math.nan, ""), (123456789012.0, "x"), (7, "y")])
    folder.close()
    rows = 'number,text\n0.666666667,"a, b"\n,\n1.23456789e+11,x\n7,y\n'
    assert (tmp_path / "table.csv").read_text() == rows


def test_windows_has_neither_locks_nor_an_alarm(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delattr(signal, "SIGALRM")
    folder = RunFolder(tmp_path)
    with in_turn(tmp_path):
        assert folder.ownership.claim()
    folder.release()
    assert attempt(lambda: "done", 0.1) == "done"
