"""Around a strategy of somebody else's: its failures are told, its process is left as it was."""

import gc

from flwr.serverapp.strategy import FedAvg

from strategies.observed import Observed

FAILS = """
from flwr.serverapp.strategy import FedAvg


def refuse():
    raise RuntimeError("not\\n  today")


class Fails(FedAvg):
    def aggregate_train(self, server_round, replies):
        refuse()
"""


def test_a_fault_in_a_class_that_was_sent_by_value_is_told_with_its_line():
    names = {"__name__": "of_another_process"}  # as a worker has it: no module of that name
    exec(compile(FAILS, "/of/another/mine.py", "exec"), names)
    strategy = Observed(names["Fails"]())
    assert strategy.aggregate_train(1, []) == (None, None)
    assert strategy.ledger is not None
    assert strategy.ledger.skipped == "RuntimeError: not today (mine.py:6)"


def test_what_others_froze_stays_frozen():
    gc.freeze()
    try:
        Observed(FedAvg()).aggregate_train(1, [])
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()
