"""A user's own table: a CSV file whose columns are inputs, label, group and client."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as brief

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import DataError, Dataset
from fl_testbed.data.sources.files import find_files
from fl_testbed.data.sources.own_table import Meanings
from fl_testbed.data.sources.tables import Table, encode, fit_features, read_table

MOST_VALUES = 100  # of a column of text that is not listed in ``categories``


def load_csv(
    data_dir: Path | None,
    rng: Generator,
    file: str,
    meanings: Meanings,
    leave_out: Sequence[str] = (),
    categories: Sequence[str] = (),
    logarithmic: Sequence[str] = (),
) -> Dataset:
    """Load a table; all columns but label, client and split are inputs, attributes included.

    A column that holds only numbers is standardised; any other gets one input for each of its
    values. Both encodings are fitted on the training rows.

    Args:
        data_dir: The folder of datasets.
        rng: Draws the test set if no column gives the split.
        file: The CSV file in the data folder, with a header.
        meanings: Which columns are label, attributes, client and split.
        leave_out: Columns not to use as inputs.
        categories: Columns whose numbers are categories, such as codes, or that have very many
            values.
        logarithmic: Columns of which log(1 + x) is standardised.

    Raises:
        DataError: If the file is missing or broken, or a column's values do not fit.
    """
    remedy = "docs/datasets.md says how to make it"
    if Path(file).is_file():
        remedy = "the one in the current folder is read with --data-dir ."
    (path,) = find_files(f"csv {file}", (file,), data_dir, (".",), remedy)
    rows = read_table(path)
    rows.check_columns([*meanings.columns, *leave_out, *categories, *logarithmic])
    no_inputs = {meanings.label, meanings.client, meanings.split, *leave_out}
    inputs = [column for column in rows.columns if column not in no_inputs]
    if not inputs:
        raise DataError(f"{path}: has no column left for the inputs")
    if "" in inputs:
        text = "has a column without a name, as pandas writes an index: save it with index=False"
        raise DataError(f"{path}: {text}, or set leave_out: ['']")
    texts = [
        column
        for column in inputs
        if column in categories or (column not in logarithmic and _is_category(rows, column))
    ]
    logs = [column for column in inputs if column in logarithmic]
    numeric = [column for column in inputs if column not in (*texts, *logs)]
    for column in logs:
        _check_logarithms(rows, column)
    values = meanings.values(rows)
    train, test = meanings.examples(rows, np.empty((len(rows), 0), np.float32), values, rng)
    assert train.ids is not None
    assert test.ids is not None
    own = rows.take(train.ids)
    features = fit_features(own, numeric, logs, texts)
    return Dataset(
        path.stem,
        replace(train, inputs=encode(own, features)),
        replace(test, inputs=encode(rows.take(test.ids), features)),
        values.pop(meanings.label),
        values,
        features,
    )


def _is_category(rows: Table, column: str) -> bool:
    """Say whether a column holds no numbers.

    Raises:
        DataError: If only some values are numbers, or there are so many different ones that they
            may be names of rows.
    """
    are_numbers = rows.are_numbers(column)
    if are_numbers.all():
        return False
    row = int(are_numbers.argmin())
    text, n_values = rows.columns[column][row], len(set(rows.columns[column]))
    if are_numbers.any():
        found = f"{column} is {brief(text)} here and a number elsewhere: correct it"
    elif n_values > MOST_VALUES:
        found = (
            f"{column} has {n_values} values that are not numbers, like {brief(text)}: use fewer"
        )
    else:
        return True
    raise rows.fault(row, f"{found}, or name it in categories or leave_out")


def _check_logarithms(rows: Table, column: str) -> None:
    too_small = rows.numbers(column) <= -1
    if too_small.any():
        row = int(too_small.argmax())
        value = rows.columns[column][row]
        raise rows.fault(row, f"{column} needs numbers > -1 for log(1 + x), got {value}")
