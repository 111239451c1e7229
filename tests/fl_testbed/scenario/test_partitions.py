"""A partition of one's own deals what it says, and what it cannot deal is told in one line."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_testbed.data import DataError, Examples
from fl_testbed.data.dealing import Pool, Shares, Wanted
from fl_testbed.scenario.partitions import OwnPartitionSpec
from fl_testbed.scenario.users_code import OwnCodeError
from strategies.randomness import Purpose, generator

TRAIN = Examples(np.zeros((8, 2)), np.array([2, 0, 1, 0, 2, 1, 0, 1]))
ROWS = np.array([7, 0, 3, 2, 5, 4, 1])  # in random order, and without row 6
SORTED = "np.array_split(examples.ids.argsort(), n_clients)"


def dealt(folder: Path, returned: str, **pool: Any) -> Shares:
    code = f"import numpy as np\n\n\ndef deal(examples, n_clients):\n    return {returned}\n"
    (folder / "mine.py").write_text(code)
    deal = OwnPartitionSpec(kind=f"{folder / 'mine.py'}:deal").build(TRAIN)
    return deal(Pool(ROWS, TRAIN.labels, 3, **pool), generator(0, Purpose.PARTITION))


def test_clients_get_what_the_function_says(tmp_path):
    rows, starts = dealt(tmp_path, SORTED)
    assert rows.tolist() == [0, 1, 2, 3, 4, 5, 7]  # by their rows, the first part larger
    assert starts.tolist() == [0, 3, 5, 7]


def test_as_many_examples_are_dealt_as_clients_need(tmp_path):
    rows, starts = dealt(tmp_path, SORTED, examples_each=2)
    assert rows.tolist() == [0, 2, 3, 4, 5, 7]  # the pool's first six
    assert starts.tolist() == [0, 2, 4, 6]
    with pytest.raises(DataError, match=r"3 clients with 3 examples need 9 training examples"):
        dealt(tmp_path, SORTED, examples_each=3)


def test_attackers_get_in_exchange_what_they_lack_for_their_poison(tmp_path):
    wanted = Wanted(TRAIN.labels == 0, 1.0)
    rows, starts = dealt(tmp_path, SORTED, n_attackers=1, wanted=wanted)
    assert sorted(rows) == sorted(ROWS)
    assert sorted(rows[starts[2] :]) == [1, 3]


@pytest.mark.parametrize(
    ("returned", "fault"),
    [
        ("examples", "a list of 3 arrays, one for each client, returned Examples"),
        ("[np.arange(2)]", "a list of 3 arrays, one for each client, returned 1"),
        ("[[0], [1], [2]]", "int64 indices of shape (n,), returned list for client 0"),
        ("[np.arange(2), np.eye(2), [1]]", "int64 indices of shape (n,), returned float"),
        (
            "[np.arange(2), np.arange(2, 4), np.arange(0)]",
            "examples for every client, returned none for client 2",
        ),
        ("np.split(np.arange(2, 8), 3)", "indices from 0 to 6, returned 2 to 7"),
        ("np.split(np.arange(-1, 5), 3)", "indices from 0 to 6, returned -1 to 4"),
        ("[np.array([1, 2])] * 3", "no index twice, returned index 1 3 times"),
    ],
)
def test_what_cannot_be_dealt_is_told_with_the_users_line(tmp_path, returned, fault):
    with pytest.raises(OwnCodeError, match=re.escape(f"mine.py:4: deal must return {fault}")):
        dealt(tmp_path, returned)
