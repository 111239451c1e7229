"""A run's folder: plain files for any tool, written so that killing a run loses no round."""

import csv
import io
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from shutil import rmtree
from typing import IO, Any, NamedTuple, Protocol, TextIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from fl_testbed.engine.ownership import Ownership, log_event
from fl_testbed.metrics import GroupAccuracy

Row = tuple[Any, ...]
State = dict[str, Tensor]
"""All that a run needs in order to continue after a record, as named tensors."""
CHECKPOINT = "checkpoint/state.safetensors"
MODEL = "model.safetensors"
ARRAYS = "arrays/"
"""Prefix of the names of the model's tensors in a state."""
MOST_KEPT = 6  # times the model's size: enough for most servers' memory, not for all clients'
FAILURE = "failure.json"
UPDATES = "updates"
SYNCING = ThreadPoolExecutor(16)  # its threads wait for the disk


def updates_file(round_: int) -> str:
    """Return the name of the file that holds what clients sent in a round."""
    return f"{UPDATES}/round-{round_:05d}.safetensors"


class Evaluated(Protocol):
    """The figures of a model that the progress display needs."""

    @property
    def groups(self) -> GroupAccuracy:
        """Its accuracy by group."""
        ...

    @property
    def attack_success_rate(self) -> float:
        """That of the first poison with a goal; NaN if no poison has one (mere damage is none)."""
        ...

    @property
    def loss(self) -> float:
        """Mean cross-entropy over the test set."""
        ...


class Record(NamedTuple):
    """What a round leaves to be written; a run on pooled data is one record."""

    round_: int
    tables: dict[str, list[Row]]
    """New rows of the run folder's tables, by file name."""
    state: State
    evaluation: Evaluated | None
    updates: bytes = b""
    """What clients sent, as the content of a file, if the scenario wants it recorded."""
    notes: tuple[str, ...] = ()
    """Decisions of the engine, such as devices and sizes of cohorts."""


class RunFolder:
    """Files of one run. Tables grow round by round; a checkpoint says how much of them counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tables: dict[str, TextIO] = {}
        self._sums: dict[str, int] = {}  # CRC-32 of each table so far
        self.ownership = Ownership(path)

    def release(self) -> None:
        """Let others write this run, and close files that are still open."""
        with suppress(OSError):  # the disk is full: the run has failed with that already
            self.close()
        self.ownership.release()

    def read(self, name: str) -> str | None:
        """Return a file's text, or None if it is not there."""
        try:
            return (self.path / name).read_text("utf-8", "replace")  # if damaged
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Write a text file whole or not at all."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes, *counted_on: TextIO) -> None:
        """Write a file whole or not at all, once the files that it relies on are safely on disk."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Only one process writes a run's folder, but several may write a sweep's at once.
        own = "" if self.ownership.is_held else f".{token_hex(4)}"
        partial = target.with_name(f"{target.name}{own}.partial")
        with partial.open("wb") as file:
            file.write(content)
            _sync(file, *counted_on)
        partial.replace(target)

    def write_json(self, name: str, value: Any) -> None:
        """Write plain data as JSON."""
        self.write(name, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def log(self, text: str) -> None:
        """Append a line to ``events.log``."""
        log_event(self.path, text)

    def start(self, columns: Mapping[str, Sequence[str]]) -> None:
        """Begin with empty tables of the given columns."""
        tables = (path.name for path in self.path.glob("*.csv"))  # an earlier run may have had more
        for stale in ("summary.json", MODEL, FAILURE, CHECKPOINT, *tables):
            (self.path / stale).unlink(missing_ok=True)
        rmtree(self.path / UPDATES, ignore_errors=True)
        for name, headings in columns.items():
            self._tables[name] = (self.path / name).open("w", encoding="utf-8", newline="")
            self._sums[name] = 0
            self.append(name, [tuple(headings)])

    def damage(self) -> str | None:
        """Say why the run cannot be resumed from its last checkpoint; None if nothing is known."""
        try:
            self._counted_on()
        except ValueError as fault:
            return str(fault)
        return None

    def _counted_on(self) -> tuple[int, dict[str, int], dict[str, int]]:
        """Return the last checkpoint's round, and how many bytes of each table it counts on, with
        their CRC-32.

        Raises:
            ValueError: If the checkpoint is damaged, or a table is missing or damaged.
        """
        with _whole_checkpoint(), safe_open(self.path / CHECKPOINT, "pt") as file:
            position = json.loads(file.metadata()["position"])
            round_, sizes = int(position["round"]), dict(position["bytes"])
            sums = dict(position.get("crc32", {}))  # earlier versions wrote none
        for name, size in sizes.items():
            path = self.path / name
            if not path.exists():
                raise _cannot_resume(name, "is missing, but its checkpoint needs it")
            with path.open("rb") as file:
                content = file.read(size)
            if len(content) < size:  # a machine's crash may lose rows
                raise _cannot_resume(name, "is shorter than its checkpoint says")
            found = zlib.crc32(content)
            if found != sums.setdefault(name, found):
                text = f"has changed since the run wrote it{_odd_row(content)}"
                raise _cannot_resume(name, text)
        return round_, sizes, sums

    def resume(self, columns: Mapping[str, Sequence[str]]) -> tuple[int, State]:
        """Resume from the last checkpoint: cut the tables to it, and return its round and tensors.

        Raises:
            ValueError: If the checkpoint is damaged, a table is missing or damaged, or tables have
                other columns than these.
        """
        round_, sizes, sums = self._counted_on()
        (self.path / FAILURE).unlink(missing_ok=True)
        with _whole_checkpoint():
            state = _tensors_of(self.path / CHECKPOINT)
            if not any(name.startswith(ARRAYS) for name in state):  # of a finished run
                model = _tensors_of(self.path / MODEL)
                state |= {f"{ARRAYS}{name}": tensor for name, tensor in model.items()}
        for name, headings in columns.items():
            path = self.path / name
            if name not in sizes:
                text = "is not in the checkpoint, as another version of fl-testbed began this run"
                raise _cannot_resume(name, text)
            table = self._tables[name] = path.open(
                "r+", encoding="utf-8", errors="replace", newline=""
            )
            if table.readline().rstrip("\n") != ",".join(headings):
                text = "has other columns, as another version of fl-testbed began this run"
                raise _cannot_resume(name, text)
            table.truncate(sizes[name])  # rows written after the checkpoint, the last perhaps torn
            table.seek(0, os.SEEK_END)
            self._sums[name] = sums[name]
        (self.path / "summary.json").unlink(missing_ok=True)  # that of fewer rounds
        return round_, state

    @property
    def has_checkpoint(self) -> bool:
        """Whether the folder has a checkpoint to resume from."""
        return (self.path / CHECKPOINT).is_file()

    def record(self, record: Record, *, lasts: bool = True) -> None:
        """Add a record's rows; if it ``lasts``, also write a checkpoint to resume from."""
        for name, rows in record.tables.items():
            self.append(name, rows)
        if record.updates:
            self.write_bytes(updates_file(record.round_), record.updates)
        for table in self._tables.values():
            table.flush()
        if not lasts:
            return
        sizes = {name: table.tell() for name, table in self._tables.items()}
        position = json.dumps({"round": record.round_, "bytes": sizes, "crc32": self._sums})
        content = save(_apart(record.state), metadata={"position": position})
        self.write_bytes(CHECKPOINT, content, *self._tables.values())

    def append(self, name: str, rows: Iterable[Row]) -> None:
        """Add rows to a table."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [[_cell(value) for value in row] for row in rows]
        )
        self._sums[name] = zlib.crc32(text.getvalue().encode(), self._sums[name])
        self._tables[name].write(text.getvalue())

    def finish(self, state: State, summary: dict[str, Any], *, may_go_on: bool = False) -> None:
        """Write the final model and, last of all, the summary, which marks the run as done.

        If the run ``may_go_on``, the rest of the state that more rounds would need is kept, unless
        it is far larger than the model.
        """
        model = {k.removeprefix(ARRAYS): v for k, v in state.items() if k.startswith(ARRAYS)}
        others = {k: v for k, v in state.items() if not k.startswith(ARRAYS)}
        self.write_bytes(MODEL, save(model))
        keeps = may_go_on and _size(others) <= MOST_KEPT * _size(model)
        if keeps:
            with safe_open(self.path / CHECKPOINT, framework="pt") as file:
                position = file.metadata()
            self.write_bytes(CHECKPOINT, save(_apart(others), metadata=position))
        self.write_json("summary.json", summary)
        if not keeps:
            (self.path / CHECKPOINT).unlink(missing_ok=True)
            with suppress(OSError):
                (self.path / CHECKPOINT).parent.rmdir()
        self.release()

    def fail(self, reason: str, traceback: str) -> None:
        """Keep what was done, and record why the run failed; resuming it tries again."""
        self.close()
        self.log(traceback.rstrip())
        self.write_json(FAILURE, {"reason": reason})

    def close(self) -> None:
        """Close all tables, even if one cannot be written, and force them to disk: the summary that
        follows says that the run is done."""
        with ExitStack() as tables:
            opened = [tables.enter_context(table) for table in self._tables.values()]
            self._tables = {}
            _sync(*opened)


def _sync(*files: IO[Any]) -> None:
    """Force files to disk, all at once: that takes hardly longer than a single file."""
    for file in files:
        file.flush()
    descriptors = [file.fileno() for file in files]
    try:
        list(SYNCING.map(os.fsync, descriptors))
    except RuntimeError:  # this user or container may start no more threads
        list(map(os.fsync, descriptors))


def _tensors_of(file: Path) -> State:
    """Return copies of a file's tensors: Windows cannot replace a file that is memory-mapped."""
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


@contextmanager
def _whole_checkpoint() -> Iterator[None]:
    """Guard the reading of a run's checkpoint."""
    try:
        yield
    except (SafetensorError, ValueError, LookupError, TypeError) as fault:
        raise _cannot_resume(CHECKPOINT, f"is not a complete checkpoint ({fault})") from None


def _odd_row(table: bytes) -> str:
    """Name the line of the first row whose cells are not those of a table; empty if none."""
    rows = csv.reader(io.StringIO(table.decode("utf-8", "replace"), newline=""))
    with suppress(csv.Error):  # such a long cell is odd too
        width = len(next(rows, []))
        if all(len(row) == width and "".join(row).isprintable() for row in rows):
            return ""
    return f" (see line {rows.line_num})"


def _cannot_resume(file: str, why: str) -> ValueError:
    return ValueError(f"{file} {why}: remove the folder to run it again")


def _size(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in state.values())


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors, no two of which share memory, as safetensors requires."""
    apart: dict[str, Tensor] = {}
    used: set[int] = set()
    for name, tensor in state.items():
        whole = tensor.contiguous()
        place = whole.untyped_storage().data_ptr()
        apart[name] = whole.clone() if place in used else whole
        used.add(place)
    return apart


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    return value
