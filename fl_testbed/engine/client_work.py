"""Runs a ClientApp on a chunk of messages: the same code in this process and on a Ray worker."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from flwr.app import Context, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp

from fl_testbed.engine.flower_internals import RUN_ID, message_from, with_views


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


class CohortApp(Protocol):
    """A ClientApp that can also train several clients at once."""

    cohort: int

    def train_many(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Answer messages that carry the same content."""
        ...


def cohort_size(app: ClientApp) -> int:
    """Return how many clients the app wants to train at once."""
    return getattr(app, "cohort", 1)


def run_chunk(app: ClientApp, content: RecordDict, tasks: Sequence[Task]) -> list[Outcome]:
    """Answer the tasks of a chunk, one by one or as one cohort.

    An exception in a client is that client's outcome and nobody else's: a cohort that fails is
    trained one by one.
    """
    messages = [message_from(RecordDict(dict(content)), task.metadata) for task in tasks]
    contexts = [_context(task) for task in tasks]
    if cohort_size(app) > 1 and len(tasks) > 1 and tasks[0].metadata.message_type == "train":
        cohort: CohortApp = app  # pyright: ignore[reportAssignmentType]
        try:
            replies = cohort.train_many(messages, contexts)
            return [_outcome(r, c) for r, c in zip(replies, contexts, strict=True)]
        except Exception:  # the client at fault shows up below
            contexts = [_context(task) for task in tasks]
    outcomes = []
    for message, context in zip(messages, contexts, strict=True):
        try:
            outcomes.append(_outcome(app(message, context), context))
        except Exception as fault:  # a client may raise anything; it must not end the run
            reason = f"{type(fault).__name__}: {fault}".splitlines()[0]
            outcomes.append(Outcome(context.node_id, None, reason, context.state))
    return outcomes


def _context(task: Task) -> Context:
    client = task.metadata.dst_node_id
    return Context(
        run_id=RUN_ID,
        node_id=client,
        node_config={"partition-id": client},
        state=task.state,
        run_config={},
    )


def _outcome(reply: Message | None, context: Context) -> Outcome:
    if not isinstance(reply, Message):
        return Outcome(context.node_id, None, f"returned {reply!r}, not a Message", context.state)
    if reply.has_error():
        return Outcome(context.node_id, None, str(reply.error.reason), context.state)
    return Outcome(context.node_id, with_views(reply.content), "", context.state)
