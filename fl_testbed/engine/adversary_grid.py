"""A grid around another: it rewrites what attackers send, unseen by strategies."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MessageType, RecordDict
from torch import Tensor

from clients.app import CLEAN_ARRAYS, round_of
from clients.attacks import FACTS, Attack, Forged, Knowledge, Schedule
from fl_testbed.engine.client_work import Outcome, Task
from fl_testbed.engine.grid import ClientGrid
from strategies.flower_arrays import Layout, UnusableReplyError, records_in
from strategies.memory import Memory
from strategies.pipeline import asked_facts
from strategies.randomness import Purpose, generator
from strategies.shapes import CPU

STATE = "attack/"  # prefix, in the grid's state, of what attackers remember

Rule = Callable[..., Tensor]
"""The server's rule as attackers know it: from updates, shape (n, d), to one update; its keyword
arguments are ``round_``, ``received``, ``layers`` and ``rng``."""


@dataclass(frozen=True)
class Attackers:
    """Attackers of one kind, and what they know."""

    clients: range
    attack: Attack
    knowledge: Knowledge
    schedule: Schedule
    samples_everybody: bool = False
    """Whether omniscient attackers take mean and spread of all updates, their own included."""


@dataclass(frozen=True)
class Surroundings:
    """What attackers may know of a federation."""

    attackers: range
    """All clients that are not honest."""
    minority: range
    n_assumed: Callable[[int], int | None]
    """How many of n clients the server's rule assumes to be malicious."""
    rule: Rule | None
    """The server's rule, for attackers who know it."""
    seed: int
    """Seed of the attackers' random numbers, which depend on it, on the round, and on the attacker
    (the first one where attackers decide together)."""


class AdversaryGrid(ClientGrid):
    """Runs clients on another grid and rewrites the replies of attackers.

    A blind attacker's reply is rewritten as it passes. Other attackers' replies are held until all
    replies are there; the updates that they look at are copied into one float32 matrix: all updates
    if any attacker is omniscient, else the attackers' own. Honest replies pass at once. Replies
    with errors or invalid arrays are forwarded unchanged.

    Args:
        grid: Runs the clients.
        kinds: The attackers, one entry for each kind.
        surroundings: What attackers may know.
        buffers: Names of the model's arrays that are no parameters: attackers send these unchanged.
        device: Where attacks compute, best the server's own device.
    """

    def __init__(
        self,
        grid: ClientGrid,
        kinds: Sequence[Attackers],
        surroundings: Surroundings,
        buffers: frozenset[str] = frozenset(),
        device: torch.device = CPU,
    ) -> None:
        super().__init__()
        self._buffers = buffers
        self._grid, self._kinds, self._around = grid, list(kinds), surroundings
        self._device = device
        self._asks = [asked_facts(kind.attack, FACTS, skip=1) for kind in self._kinds]
        self._memories: list[Memory] = [{} for _ in self._kinds]

    def execute(self, content: RecordDict, tasks: list[Task]) -> Iterator[Outcome]:
        """Let the other grid run the tasks."""
        self._grid.keep_order = self.keep_order
        return self._grid.execute(content, tasks)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield replies as they arrive, those of attackers rewritten."""
        messages = list(messages)
        replies = super().send_and_receive(messages, timeout=timeout)
        if messages and messages[0].metadata.message_type == MessageType.TRAIN:
            replies = self._rewritten(_Round(messages, self._buffers, self._device), replies)
        yield from replies

    def _rewritten(self, asked: "_Round", replies: Iterator[Message]) -> Iterator[Message]:
        active = [p for p, k in enumerate(self._kinds) if k.schedule.is_active(asked.round_)]
        kind_of = {client: place for place in active for client in self._kinds[place].clients}
        board = _Board(self._looked_at(asked, active), asked.layout.size, self._device)
        held: dict[int, list[tuple[Message, str]]] = {place: [] for place in active}
        for reply in replies:
            client = reply.metadata.src_node_id
            place = kind_of.get(client)
            clean = None
            if not reply.has_error():
                clean = records_in(reply.content, ArrayRecord).get(CLEAN_ARRAYS)
            if clean is not None:
                del reply.content[CLEAN_ARRAYS]
            if place is not None and self._kinds[place].knowledge is Knowledge.BLIND:
                reply = self._blindly(asked, place, reply)
                place = None
            if client in board.places and asked.copy(reply, clean, board) and place is not None:
                held[place].append((reply, asked.emptied(reply)))
            else:
                yield reply
        board.close_gaps()
        for place, waiting in held.items():
            waiting.sort(key=lambda item: item[0].metadata.src_node_id)
            own = [reply.metadata.src_node_id for reply, _ in waiting]
            if own:
                updates = self._together(asked, place, own, board)
                for (reply, key), update in zip(waiting, updates, strict=True):
                    yield asked.with_update(reply, key, update)

    def _looked_at(self, asked: "_Round", active: Sequence[int]) -> list[int]:
        """Return the clients whose updates this round's attackers look at."""
        knowing = [
            kind
            for kind in (self._kinds[place] for place in active)
            if kind.knowledge is not Knowledge.BLIND
            and any(client in kind.clients for client in asked.starts)
        ]
        if any(kind.knowledge is Knowledge.OMNISCIENT for kind in knowing):
            return sorted(asked.starts)
        return sorted(c for c in asked.starts if any(c in kind.clients for kind in knowing))

    def _blindly(self, asked: "_Round", place: int, reply: Message) -> Message:
        """Rewrite the reply of one attacker who sees nothing but its own update."""
        own = asked.update_of(reply)
        if own is None:
            return reply
        client = reply.metadata.src_node_id
        known = self._commonly_known(asked, place, client, client)
        forged = self._attack(place, own[None, : asked.n_parameters], known)
        update = torch.cat([forged.updates[0], own[asked.n_parameters :]])
        return asked.with_update(reply, asked.emptied(reply), update)

    def _together(self, asked: "_Round", place: int, own: list[int], board: "_Board") -> Tensor:
        """Return the updates that attackers of one kind send, given what their knowledge shows."""
        kind, whole, d = self._kinds[place], board.rows(own), asked.n_parameters
        rows = whole[:, :d]
        known = self._commonly_known(asked, place, own[0], kind.clients[0])
        known["clean"] = board.clean(own)[:, :d]
        if kind.knowledge is Knowledge.COLLUDING:
            clients = own
            seen = sample = known["clean"]
            is_minority = [True for _ in own]
        else:
            clients = [c for c in board.places if c not in self._around.attackers]
            seen = board.rows(clients)[:, :d]
            sample = board.rows(list(board.places))[:, :d] if kind.samples_everybody else seen
            is_minority = [c in self._around.minority for c in clients]
        if not clients:
            return whole  # nobody to learn from
        known["seen"], known["sample"] = seen, sample
        known["seen_clients"] = torch.tensor(clients).to(self._device)
        known["is_minority"] = torch.tensor(is_minority).to(self._device)
        kept = self._memories[place].items()
        known["memory"] = {name: value.to(self._device) for name, value in kept}
        if self._around.rule is not None:
            known["defence"] = self._foreseen(self._around.rule, asked, board, rows)
        forged = self._attack(place, rows, known)
        # Clone: the memory may be a view of their own rows, which the next line overwrites.
        self._memories[place] = {name: value.clone() for name, value in forged.memory.items()}
        rows.copy_(forged.updates)  # the next kind of attackers sees these
        return whole

    def _commonly_known(
        self, asked: "_Round", place: int, attacker: int, source: int
    ) -> dict[str, Any]:
        """Return what even blind attackers know; ``source`` is whose random numbers they use."""
        n_attackers = asked.n_among(self._kinds[place].clients)
        n_assumed = self._around.n_assumed(len(asked.starts))
        return {
            "n_clients": len(asked.starts),
            "n_attackers": n_attackers,
            "n_assumed": n_attackers if n_assumed is None else n_assumed,
            "round_": asked.round_,
            # A copy: updates are differences from the original, which an attack must not change.
            "received": asked.starts[attacker][: asked.n_parameters].clone(),
            "layers": asked.layout.layers,
            "rng": generator(self._around.seed, Purpose.ATTACK, asked.round_, source),
        }

    def _foreseen(
        self, rule: Rule, asked: "_Round", board: "_Board", rows: Tensor
    ) -> Callable[[Tensor], Tensor]:
        """Return what the server would do if these attackers all sent a given update."""
        everyone = board.rows(list(board.places))[:, : asked.n_parameters]
        known = {
            "round_": asked.round_,
            "received": next(iter(asked.starts.values()))[: asked.n_parameters],
            "layers": asked.layout.layers,
        }

        def defence(update: Tensor) -> Tensor:
            own = rows.clone()  # to restore: the attack uses these rows, and asks again
            rows[:] = update  # in place: memory may not hold a second matrix
            try:
                rng = generator(self._around.seed, Purpose.ATTACK, asked.round_)
                return rule(everyone, rng=rng, **known).clone()  # may be a view of a row
            finally:
                rows.copy_(own)

        return defence

    def _attack(self, place: int, own: Tensor, known: dict[str, Any]) -> Forged:
        facts = {name: known[name] for name in self._asks[place] if name in known}
        return self._kinds[place].attack(own, **facts)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what clients and attackers remember."""
        state = super().state_dict()
        for place, memory in enumerate(self._memories):
            state |= {f"{STATE}{place}/{name}": value.cpu() for name, value in memory.items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
        super().load_state_dict({k: v for k, v in state.items() if not k.startswith(STATE)})
        self._memories = [{} for _ in self._kinds]
        for key, value in state.items():
            if key.startswith(STATE):
                place, _, name = key.removeprefix(STATE).partition("/")
                self._memories[int(place)][name] = value


class _Round:
    """One round's messages, and the way from replies to updates and back."""

    def __init__(
        self, messages: Sequence[Message], buffers: frozenset[str], device: torch.device
    ) -> None:
        self._device = device
        self.round_ = round_of(messages[0])
        self._arrays = {m.metadata.dst_node_id: _arrays_of(m)[1] for m in messages}
        self.layout = Layout.of(_arrays_of(messages[0])[1], buffers)
        self.n_parameters = self.layout.n_parameters
        flat = {id(arrays): self._flat(arrays) for arrays in self._arrays.values()}
        self.starts = {client: flat[id(arrays)] for client, arrays in self._arrays.items()}
        """What each client received, parameters before buffers."""
        asked = self.starts.keys()
        # Cached: every blind attacker of a kind asks this again.
        self.n_among = cache(lambda clients: len(asked & clients))
        """How many of the given clients were asked in this round."""

    def update_of(self, reply: Message) -> Tensor | None:
        """Return a reply's update; None if it has none that the server could use."""
        if reply.has_error() or len(records_in(reply.content, ArrayRecord)) != 1:
            return None
        return self._update(_arrays_of(reply)[1], reply.metadata.src_node_id)

    def copy(self, reply: Message, clean: ArrayRecord | None, board: "_Board") -> bool:
        """Copy a reply's update, and its clean twin, to the board; return whether it is usable."""
        client = reply.metadata.src_node_id
        own = self.update_of(reply)
        twin = None if clean is None else self._update(clean, client)
        if own is None or (clean is not None and twin is None):
            return False
        board.put(client, own, twin)
        return True

    @staticmethod
    def emptied(reply: Message) -> str:
        """Drop a reply's arrays, so that a held reply does not keep their memory; return their
        key."""
        key, _ = _arrays_of(reply)
        del reply.content[key]
        return key

    def with_update(self, reply: Message, key: str, update: Tensor) -> Message:
        """Put an update into an emptied reply."""
        client = reply.metadata.src_node_id
        with np.errstate(over="ignore"):  # the server will see that it is not finite
            flat = self.starts[client] + update
            reply.content[key] = self.layout.read_flat(flat, self._arrays[client])
        return reply

    def _update(self, arrays: ArrayRecord, client: int) -> Tensor | None:
        try:
            update = self._flat(arrays) - self.starts[client]
        except UnusableReplyError:
            return None
        return update if update.isfinite().all() else None

    def _flat(self, arrays: ArrayRecord) -> Tensor:
        flat = self.layout.flat_of(arrays)
        if isinstance(flat, Tensor):
            return flat.to(self._device)
        return torch.from_numpy(self.layout.flattened(arrays)).to(self._device)


def _arrays_of(message: Message) -> tuple[str, ArrayRecord]:
    return next(iter(records_in(message.content, ArrayRecord).items()))


class _Board:
    """Updates that attackers look at, one row per client in the order of client ids."""

    def __init__(self, clients: Sequence[int], n_parameters: int, device: torch.device) -> None:
        self.places = {client: row for row, client in enumerate(clients)}
        """The row of each client; after :meth:`close_gaps`, of those that sent one."""
        self._matrix = torch.empty(len(clients), n_parameters, device=device)
        self._twins: dict[int, Tensor] = {}
        self._there: set[int] = set()

    def put(self, client: int, update: Tensor, twin: Tensor | None) -> None:
        """Copy a client's update, and keep the clean twin of an attacker's."""
        self._matrix[self.places[client]] = update
        self._there.add(client)
        if twin is not None:
            self._twins[client] = twin

    def close_gaps(self) -> None:
        """Move rows up, over those of clients that sent no update."""
        there = [client for client in self.places if client in self._there]
        for row, client in enumerate(there):
            if self.places[client] != row:
                self._matrix[row] = self._matrix[self.places[client]]
        self.places = {client: row for row, client in enumerate(there)}

    def rows(self, clients: Sequence[int]) -> Tensor:
        """Return a view of the rows of clients whose ids follow each other on the board."""
        if not clients:
            return self._matrix[:0]
        first, last = self.places[clients[0]], self.places[clients[-1]]
        return self._matrix[first : last + 1]

    def clean(self, own: Sequence[int]) -> Tensor:
        """Return what attackers would send had they trained on clean data."""
        if not all(client in self._twins for client in own):
            return self.rows(own)
        return torch.stack([self._twins[client] for client in own])
