"""All imports from outside Flower's public API, in one place and tested.

``strategies/flower_arrays.py`` also bypasses what Flower's arrays do when they are made or set, but
it imports public names alone.
"""

import logging
import os

from flwr.app import Message, Metadata, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.supercore import telemetry
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE_ID = -1
RUN_ID = 1


def quiet_flower() -> None:
    """Turn Flower's telemetry off, and its log down to errors: the engine reports rounds itself."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # for processes that start later
    telemetry.FLWR_TELEMETRY_ENABLED = "0"  # this one read the variable when it imported Flower
    logger = logging.getLogger("flwr")
    logger.setLevel(logging.ERROR)
    logger.addFilter(is_no_clients_fault)


def is_no_clients_fault(record: logging.LogRecord) -> bool:
    """Filter out the stack traces of failing or interrupted clients: ledgers have a line each."""
    return record.module not in ("vce_api", "raybackend")


def become_server() -> None:
    """Let this process construct messages, for which Flower asks the identity of the sender."""
    quiet_flower()
    TaskIdentity.task_id = 0
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.node_id = SERVER_NODE_ID


def empty_run() -> Run:
    """Return the description of a run that Flower knows nothing of."""
    return Run.create_empty(RUN_ID)


def with_message_id(message: Message, message_id: str) -> Message:
    """Give an outgoing message the id that a SuperLink would give it."""
    message.metadata.__dict__["_message_id"] = message_id
    return message


def message_from(content: RecordDict, metadata: Metadata) -> Message:
    """Return a message as it arrives at a node."""
    return Message(content, metadata=metadata)  # pyright: ignore[reportCallIssue]


def to_bytes(content: RecordDict) -> bytes:
    """Serialise a record dict as Flower sends it."""
    return recorddict_to_proto(content).SerializeToString(deterministic=True)


def from_bytes(content: bytes) -> RecordDict:
    """Read what :func:`to_bytes` wrote."""
    return recorddict_from_proto(ProtoRecordDict.FromString(content))
