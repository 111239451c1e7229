"""Tables of run folders, read back as they were written."""

import io

import pytest

from fl_testbed.metrics import read_table


@pytest.mark.parametrize("names", [["01", "1.0"], ["NA", "None"], ["true", "false"]])
def test_a_name_that_looks_like_something_else_stays_a_name(names: list[str]) -> None:
    table = read_table(io.StringIO(f"group,accuracy\n{names[0]},0.5\n{names[1]},\n"))
    assert table["group"].tolist() == names
    assert table["accuracy"].isna().tolist() == [False, True]
