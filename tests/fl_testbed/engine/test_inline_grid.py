"""What clients keep is committed at the end of a round, and only where all went well."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fl_testbed.engine.inline_grid import InlineGrid
from strategies.flower_arrays import record_of


class Counting(ClientApp):
    """Counts in each client how often it trained. Client 1 fails after round 1, having counted."""

    def __init__(self, cohort: int) -> None:
        super().__init__()
        self.cohort, self.notes = cohort, []
        self.train()(self.answer)

    def answer(self, message: Message, context: Context) -> Message:
        kept = context.state.config_records.get("kept", ConfigRecord({"n": 0}))
        context.state["kept"] = ConfigRecord({"n": int(str(kept["n"])) + 1})
        config = message.content.config_records["config"]
        if context.node_config["partition-id"] == 1 and config["server-round"] != 1:
            raise RuntimeError("out of battery")
        return Message(RecordDict(), reply_to=message)

    def train_many(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        return [self.answer(*pair) for pair in zip(messages, contexts, strict=True)]


def test_why_a_cohort_is_trained_one_by_one_is_told_once() -> None:
    grid = InlineGrid(Counting(cohort=3), client_timeout_s=60.0)
    told = []
    for server_round in (1, 2, 3):
        content = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        messages = [grid.create_message(content, "train", client, "1") for client in range(3)]
        list(grid.send_and_receive(messages))
        told.append(grid.notes[:])
        grid.notes.clear()
    reason = "a cohort failed, its clients train one by one: RuntimeError: out of battery"
    assert [len(notes) for notes in told] == [0, 1, 0]
    assert told[1][0].startswith(reason)


@pytest.mark.parametrize("cohort", [1, 3])
def test_what_a_failing_client_put_into_its_state_is_void(cohort: int) -> None:
    grid = InlineGrid(Counting(cohort), client_timeout_s=60.0)
    before_and_after = []
    for server_round in (1, 2):
        content = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        messages = [grid.create_message(content, "train", client, "1") for client in range(3)]
        list(grid.send_and_receive(messages))
        before_and_after.append(counts(grid))
        grid.end_round()
        before_and_after.append(counts(grid))
        resumed = InlineGrid(ClientApp(), client_timeout_s=60.0)
        resumed.load_state_dict(grid.state_dict())
        assert counts(resumed) == counts(grid)
    assert before_and_after == [{}, {0: 1, 1: 1, 2: 1}, {0: 1, 1: 1, 2: 1}, {0: 2, 1: 1, 2: 2}]


def counts(grid: InlineGrid) -> dict[int, object]:
    return {client: state.config_records["kept"]["n"] for client, state in grid.states.items()}


def test_a_client_may_forget_all_it_kept() -> None:
    def forget(message: Message, context: Context) -> Message:
        context.state = RecordDict()
        return Message(RecordDict(), reply_to=message)

    app = ClientApp()
    app.train()(forget)
    grid = InlineGrid(app, client_timeout_s=60.0)
    grid.states = {0: RecordDict({"kept": ConfigRecord({"n": 1})})}
    assert grid.state_dict()
    list(grid.send_and_receive([grid.create_message(RecordDict(), "train", 0, "1")]))
    grid.end_round()
    assert not grid.states[0]
    assert not grid.state_dict()


@pytest.mark.parametrize("sent", [record_of, lambda arrays: ArrayRecord([*arrays.values()])])
def test_what_a_client_writes_into_its_arrays_no_other_reads(sent: Callable) -> None:
    def train(message: Message, context: Context) -> Message:
        (weight,) = message.content.array_records["arrays"].to_numpy_ndarrays()
        weight += 1
        return Message(RecordDict({"arrays": ArrayRecord([weight])}), reply_to=message)

    app = ClientApp()
    app.train()(train)
    grid = InlineGrid(app, client_timeout_s=60.0)
    content = RecordDict({"arrays": sent({"weight": np.zeros(2, np.float32)})})
    replies = grid.send_and_receive(
        [grid.create_message(content, "train", client, "1") for client in range(2)]
    )
    for reply in replies:
        (weight,) = reply.content.array_records["arrays"].to_numpy_ndarrays()
        assert weight.tolist() == [1, 1]


def test_replies_are_to_the_messages_that_were_pushed() -> None:
    app = ClientApp()
    app.train()(lambda message, context: Message(message.content, reply_to=message))
    grid = InlineGrid(app, client_timeout_s=60.0)

    def push(n: int) -> str:
        content = RecordDict({"config": ConfigRecord({"n": n})})
        (key,) = grid.push_messages([grid.create_message(content, "train", 5, "1")])
        return key

    def pull(key: str) -> object:
        (reply,) = grid.pull_messages([key])
        return reply.content.config_records["config"]["n"]

    first, second = push(1), push(2)
    assert pull(first) == 1
    third = push(3)
    assert (pull(third), pull(second)) == (3, 2)


class UntoldError(Exception):
    """Has no text either."""

    def __str__(self) -> str:
        raise ValueError("nor has its text")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (SystemExit(0), "SystemExit: 0"),
        (GeneratorExit(), "GeneratorExit:"),
        (UntoldError(), "UntoldError: (it has no text)"),
        (RuntimeError("no " * 10**6), "RuntimeError: no no no"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_client_raises_is_its_own_failure(fault: BaseException, reason: str) -> None:
    def answer(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1:
            raise fault
        return Message(RecordDict(), reply_to=message)

    replies = ask_three(answer, timeout_s=60.0)
    assert [reply.has_error() for reply in replies] == [False, True, False]
    told = str(replies[1].error.reason)
    assert told.startswith(reason)
    assert len(told) < 2000


def test_a_time_limit_cuts_no_import_in_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its parts are there the second time, and Python does not run them again: it stays half done.
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "__init__.py").write_text("from slow import part\nwhole = part.whole\n")
    (tmp_path / "slow" / "part.py").write_text("import time\ntime.sleep(0.4)\nwhole = True\n")
    monkeypatch.syspath_prepend(tmp_path)

    def answer(message: Message, context: Context) -> Message:
        import slow  # pyright: ignore[reportMissingImports]

        assert slow.whole
        if context.node_config["partition-id"] == 0:
            time.sleep(60)
        return Message(RecordDict(), reply_to=message)

    replies = ask_three(answer, timeout_s=0.1)
    assert "slow" in sys.modules
    assert [reply.has_error() for reply in replies] == [True, False, False]
    assert replies[0].error.reason == "no reply within 0.1 s"


def ask_three(answer: Callable[[Message, Context], Message], timeout_s: float) -> list[Message]:
    app = ClientApp()
    app.train()(answer)
    grid = InlineGrid(app, client_timeout_s=timeout_s)
    content = RecordDict()
    return list(
        grid.send_and_receive(grid.create_message(content, "train", n, "1") for n in range(3))
    )
