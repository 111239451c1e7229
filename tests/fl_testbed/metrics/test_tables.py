"""Tables of run folders, read back as they were written."""

import io
import math

import pytest

from fl_testbed.metrics import finite_or_none, read_table


@pytest.mark.parametrize("names", [["01", "1.0"], ["NA", "None"], ["true", "false"]])
def test_a_name_that_looks_like_something_else_stays_a_name(names: list[str]) -> None:
    columns = ["name", "variant", "group", "poison"]
    first, second = (",".join([name] * 4) for name in names)
    text = f"{','.join(columns)},accuracy\n{first},0.5\n{second},\n"
    table = read_table(io.StringIO(text))
    for column in columns:
        assert table[column].tolist() == names
    assert table["accuracy"].isna().tolist() == [False, True]
    assert read_table(io.StringIO(text), {"accuracy": float}).columns.tolist() == ["accuracy"]


def test_figures_without_a_number_are_missing() -> None:
    figures = finite_or_none({"a": 0.5, "b": math.nan, 3: math.inf, "d": -math.inf})
    assert figures == {"a": 0.5, "b": None, "3": None, "d": None}
