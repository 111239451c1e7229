"""Which process writes a run: one at a time, even where several machines share the disk."""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

from fl_testbed.engine.errors import TakenError

EVENTS = "events.log"
TURNS = ".lock"
"""Lock file in a sweep's folder, by which commands that write there take turns."""
WRITER = "written by process "
"""Begins a signature in ``events.log``, before the process that writes the run from there on."""
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
"""Not always at the start of a line: a machine that crashed may leave a torn line, or zeros."""
TOGETHER = timedelta(seconds=2)
"""Of machines that sign a run within this time, the first owns it: jobs may start together."""


def log_event(folder: Path, text: str) -> None:
    """Append a line to a run's ``events.log``."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with (folder / EVENTS).open("a", encoding="utf-8") as file:
        file.write(f"{now} {text}\n")


class Ownership:
    """A process's right to write a run: a lock on its ``events.log``, and a signature in it.

    The lock keeps other processes of this machine out. On disks that several machines share, locks
    may not reach the other machines, or not exist; there the signature tells who came first.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: TextIO | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process has claimed the run."""
        return self._lock is not None

    def claim(self) -> bool:
        """Keep other processes from writing the run, until it is released or this process ends.

        Returns:
            Whether the claim is new: False if this process held it already.

        Raises:
            TakenError: If another process is writing it.
        """
        if self.is_held:
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = (self._folder / EVENTS).open("a", encoding="utf-8")
        if not _locked(lock):
            lock.close()
            raise _taken_by(self._writer())
        self._lock = lock
        return True

    def sign(self) -> None:
        """Note that this process writes the run from here on.

        Raises:
            TakenError: If another machine has begun it at the same time.
        """
        log_event(self._folder, f"{WRITER}{_this_process()}")
        self.check()

    def check(self) -> None:
        """Check again that the run is this process's, for locks may not reach other machines.

        Raises:
            TakenError: If another process has it, or its folder is gone.
        """
        if not self._folder.exists():
            raise TakenError("was removed or moved while the run went on: run it again")
        writer = self._writer()
        if writer not in (None, _this_process()):
            raise _taken_by(writer)

    def taken(self) -> str | None:
        """Return the text of the fault if another process is writing the run, else None."""
        try:
            if self.claim():
                self.release()
        except TakenError as fault:
            return str(fault)
        except OSError:  # the folder is read-only
            return None
        return None

    def release(self) -> None:
        """Let others write the run."""
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def _writer(self) -> str | None:
        try:
            events = (self._folder / EVENTS).read_text("utf-8", "replace")
        except FileNotFoundError:
            return None
        writer, since = "", datetime.min.replace(tzinfo=UTC)
        for time, process in re.findall(rf"({TIME}) {WRITER}(.+)$", events, re.MULTILINE):
            at = datetime.fromisoformat(time)
            if abs(at - since) > TOGETHER or _machine(process) == _machine(writer):
                writer, since = process, at
        return writer or None


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Make commands that write to a folder of several runs wait for one another."""
    folder.mkdir(parents=True, exist_ok=True)
    # Between machines, NFS locks neither folders nor files that are opened for reading.
    with (folder / TURNS).open("a") as turns:
        _locked(turns, waits=True)
        yield


def _this_process() -> str:
    return f"{os.getpid()} on {platform.node()}"


def _machine(process: str) -> str:
    return process.partition(" on ")[2]


def _taken_by(writer: str | None) -> TakenError:
    which = f" (process {writer})" if writer else ""
    return TakenError(f"is being written by another command{which}: let it finish, or stop it")


def _locked(file: TextIO, *, waits: bool = False) -> bool:
    """Lock a file until it is closed; return False if another process has locked it.

    Windows and some file systems have no such locks: there this always succeeds.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True
