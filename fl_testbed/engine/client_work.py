"""Runs a ClientApp on a chunk of messages: the same code in this process and on a Ray worker."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from flwr.app import Context, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp

from fl_testbed.engine.flower_internals import RUN_ID, message_from
from fl_testbed.scenario.users_code import described
from strategies.flower_arrays import with_views, without_views

LOOK_AGAIN_S = 0.05  # until checking again whether an overdue client has finished importing

Done = TypeVar("Done")


class Task(NamedTuple):
    """One message to one client, without its content, which the whole chunk shares."""

    metadata: Metadata
    state: RecordDict
    """What the client kept from earlier rounds."""


class Outcome(NamedTuple):
    """What came of a task."""

    client: int
    content: RecordDict | None
    """The reply's content; None if there is no reply that can be sent."""
    error: str
    """Why there is none."""
    state: RecordDict
    notes: tuple[str, ...] = ()
    """Decisions of the app, such as to train fewer clients at once."""


@runtime_checkable
class CohortApp(Protocol):
    """A ClientApp that can also train several clients at once."""

    notes: list[str]
    """Decisions that it took, to be reported."""

    @property
    def cohort(self) -> int:
        """How many clients it trains at once."""
        ...

    def train_many(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Train as many of the first clients as it chooses, and return their replies; all messages
        have the same content."""
        ...


def cohort_size(app: ClientApp) -> int:
    """Return how many clients the app wants to train at once."""
    return app.cohort if isinstance(app, CohortApp) else 1


def run_chunk(
    app: ClientApp, content: RecordDict, tasks: Sequence[Task], timeout_s: float
) -> Iterator[Outcome]:
    """Answer the tasks of a chunk, one by one or as cohorts.

    A client that raises an exception, or takes more than ``timeout_s`` seconds, fails alone: if a
    cohort fails, its clients are trained one by one.
    """
    notes: list[str] = []
    if not isinstance(app, CohortApp):
        content = without_views(content)  # as in Flower, each client gets its own copy
    else:
        notes = app.notes
        while len(tasks) > 1 and app.cohort > 1 and tasks[0].metadata.message_type == "train":
            outcomes = _run_cohort(app, content, tasks, timeout_s * len(tasks))
            if isinstance(outcomes, str):
                notes.insert(0, f"a cohort failed, its clients train one by one: {outcomes}")
                break
            yield from _with_notes(notes, outcomes)
            tasks = tasks[len(outcomes) :]
    for task in tasks:
        yield from _with_notes(notes, [_run_one(app, content, task, timeout_s)])


def _with_notes(notes: list[str], outcomes: list[Outcome]) -> list[Outcome]:
    """Return outcomes, the first of which carries the notes taken since the last call."""
    if notes:
        outcomes[0] = outcomes[0]._replace(notes=tuple(notes))
        notes.clear()
    return outcomes


def _run_cohort(
    app: CohortApp, content: RecordDict, tasks: Sequence[Task], timeout_s: float
) -> list[Outcome] | str:
    """Return the outcomes of the first tasks, or why the cohort failed."""
    contexts = [_context(task) for task in tasks]
    messages = [_message(content, task) for task in tasks]

    def work() -> list[Outcome]:
        replies = app.train_many(messages, contexts)
        return [_outcome(r, c) for r, c in zip(replies, contexts, strict=False)]

    return attempt(work, timeout_s)


def _run_one(app: ClientApp, content: RecordDict, task: Task, timeout_s: float) -> Outcome:
    context = _context(task)
    done = attempt(lambda: _outcome(app(_message(content, task), context), context), timeout_s)
    if isinstance(done, str):
        return Outcome(task.metadata.dst_node_id, None, done, task.state)
    return done


def attempt(work: Callable[[], Done], timeout_s: float) -> Done | str:
    """Return what a client's work returns, or a text that says why it failed."""
    try:
        with _time_limit(timeout_s):
            return work()
    except ClientTimeout:
        return f"no reply within {timeout_s:g} s"
    except KeyboardInterrupt:
        raise
    except BaseException as fault:  # sys.exit's too: whatever a client does, the run goes on
        return described(fault)


class ClientTimeout(BaseException):
    """A client took too long. Not an Exception, for a client might catch that and go on."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupt Python code after some seconds; without effect outside a process's main thread, and
    on Windows."""
    in_main = threading.current_thread() is threading.main_thread()
    if not (in_main and hasattr(signal, "SIGALRM")):
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if _is_importing(frame):  # a half-imported module would fail all later clients
            signal.setitimer(signal.ITIMER_REAL, LOOK_AGAIN_S)
        else:
            raise ClientTimeout

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether the client at work, whose frames are inside this file's, imports something."""
    while frame is not None and frame.f_code.co_filename != __file__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _message(content: RecordDict, task: Task) -> Message:
    # Records are shared between the clients of a chunk, the dict around them is not.
    return message_from(RecordDict(dict(content)), task.metadata)


def _context(task: Task) -> Context:
    client = task.metadata.dst_node_id
    return Context(
        run_id=RUN_ID,
        node_id=client,
        node_config={"partition-id": client},
        # A copy: what a failing client, or a cohort that is tried again, puts there is dropped.
        state=RecordDict(dict(task.state)),
        run_config={},
    )


def _outcome(reply: Message | None, context: Context) -> Outcome:
    if not isinstance(reply, Message):
        return Outcome(context.node_id, None, f"returned {reply!r}, not a Message", context.state)
    if reply.has_error():
        return Outcome(context.node_id, None, str(reply.error.reason), context.state)
    return Outcome(context.node_id, with_views(reply.content), "", context.state)
