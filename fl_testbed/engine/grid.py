"""What all grids share: Flower's Grid interface, wherever clients' work is done."""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count

import torch
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fl_testbed.engine.client_work import Outcome, Task
from fl_testbed.engine.flower_internals import Run, empty_run, from_bytes, to_bytes, with_message_id
from strategies.flower_arrays import with_views

CLIENT_FAILED = 1
DROPPED_OUT = "dropped out"


class ClientGrid(Grid):
    """Runs a ClientApp for the clients of a federation; node ids are client ids.

    ``sample`` is the round's sample, set by the round loop: :meth:`get_node_ids` shows strategies
    only these clients, so that any strategy that samples a fraction of 1 trains exactly them. What
    clients keep in their ``Context.state`` travels with task and reply and is committed by
    :meth:`end_round`, so that a worker may die at any time.
    """

    def __init__(self) -> None:
        self.sample: Sequence[int] = []
        self.dropouts: Collection[int] = ()
        """Clients of the sample that do not answer, and so need not train."""
        self.keep_order = False
        """Whether outcomes come in client order, for a strategy that sums replies in that order.
        Then no task is handed out far ahead of the oldest unfinished one."""
        self.notes: list[str] = []
        """Decisions that apps report, in the order of replies, each once."""
        self._noted: set[str] = set()
        self.states: dict[int, RecordDict] = {}
        self._new_states: dict[int, RecordDict] = {}
        self._packed: dict[int, Tensor] = {}  # states as bytes, kept: most do not change in a round
        self._outbox: dict[str, Message] = {}
        self._n_pushed = count()
        self._run = empty_run()

    @abstractmethod
    def execute(self, content: RecordDict, tasks: list[Task]) -> Iterator[Outcome]:
        """Run tasks with the same content, in any order, and yield their outcomes."""

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield replies as they arrive; the messages are executed while this is iterated."""
        by_content: dict[int, list[Message]] = {}
        for message in messages:
            by_content.setdefault(id(message.content), []).append(message)
        for group in by_content.values():
            yield from self._answer(group)

    def _answer(self, messages: list[Message]) -> Iterator[Message]:
        asked = {message.metadata.dst_node_id: message for message in messages}
        for client in [client for client in asked if client in self.dropouts]:
            yield Message(Error(CLIENT_FAILED, DROPPED_OUT), reply_to=asked.pop(client))
        tasks = [
            Task(m.metadata, self.states.get(client, RecordDict())) for client, m in asked.items()
        ]
        for outcome in self.execute(with_views(messages[0].content), tasks):
            self.notes += [note for note in outcome.notes if note not in self._noted]
            self._noted.update(outcome.notes)
            if outcome.state or outcome.client in self.states:  # it may be empty now
                self._new_states[outcome.client] = outcome.state
            reply = self._reply(asked[outcome.client], outcome)
            del outcome  # keep no reply in memory while waiting for the next
            yield reply
            del reply

    @staticmethod
    def _reply(message: Message, outcome: Outcome) -> Message:
        if outcome.content is None:
            return Message(Error(CLIENT_FAILED, outcome.error), reply_to=message)
        return Message(outcome.content, reply_to=message)

    def end_round(self) -> None:
        """Commit what clients kept in this round."""
        self.states.update(self._new_states)
        for client in self._new_states:
            self._packed.pop(client, None)
        self._new_states = {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what clients keep, as bytes by client id."""
        for client, record in self.states.items():
            if record and client not in self._packed:
                content = bytearray(to_bytes(record))
                self._packed[client] = torch.frombuffer(content, dtype=torch.uint8)
        return {str(client): content for client, content in self._packed.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.states = {
            int(client): from_bytes(content.numpy().tobytes()) for client, content in state.items()
        }
        self._packed = {}

    def get_node_ids(self) -> Iterable[int]:
        """Return the round's sample."""
        return list(self.sample)

    def set_run(self, run: Run) -> None:
        """Take Flower's description of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to a client."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until their replies are pulled."""
        ids = []
        for message in messages:
            key = f"{next(self._n_pushed)}-{message.metadata.dst_node_id}"
            self._outbox[key] = with_message_id(message, key)
            ids.append(key)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Execute pushed messages and return the replies."""
        pushed = [self._outbox.pop(key) for key in message_ids if key in self._outbox]
        return list(self.send_and_receive(pushed))
