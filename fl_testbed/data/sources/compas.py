"""COMPAS: who was arrested again within two years, in Broward County, Florida."""

from pathlib import Path

import numpy as np
from numpy.random import Generator

from fl_testbed.data.dataset import DataError, Dataset, Examples
from fl_testbed.data.sources.fetching import remedy
from fl_testbed.data.sources.files import find_files
from fl_testbed.data.sources.splitting import n_tested
from fl_testbed.data.sources.tables import Table, encode, fit_features, read_table

NUMERIC = ("age",)
LOGARITHMIC = ("priors_count", "juv_fel_count", "juv_misd_count", "juv_other_count")
CATEGORIES = ("c_charge_degree", "race", "sex")
ATTRIBUTES = ("sex", "race")
CLASSES = ("no", "yes")
FILTERS = ("days_b_screening_arrest", "is_recid", "score_text")
DAYS = 30


def load_compas(data_dir: Path | None, rng: Generator, test_fraction: float = 0.2) -> Dataset:
    """Load ProPublica's table: 6,172 people after its own filter, attributes sex and race.

    The filter drops people scored more than 30 days before or after their arrest, people of whom
    it is not known whether they were arrested again, traffic offences, and people without a score.
    The seed draws the people to test on; scaling is fitted on the others.

    Raises:
        DataError: If the file is not there or is broken.

    References:
        Angwin et al., Machine Bias, ProPublica, 2016.
    """
    name = "compas-scores-two-years.csv"
    (path,) = find_files("COMPAS", (name,), data_dir, ("compas",), remedy("compas"))
    used = (*NUMERIC, *LOGARITHMIC, *CATEGORIES, *FILTERS, "id", "two_year_recid")
    whole = read_table(path, used)
    whole.check_unique("id")
    kept = np.array([row for row in range(len(whole)) if _is_kept(whole, row)], dtype=np.int64)
    if len(kept) < 2:
        raise DataError(f"{path}: has {len(kept)} rows that ProPublica's filter keeps")
    people = whole.take(kept)
    order = rng.permutation(len(people))
    n_test = n_tested(len(people), test_fraction)
    test, train = order[:n_test], order[n_test:]
    features = fit_features(people.take(train), NUMERIC, LOGARITHMIC, CATEGORIES)
    values = {name: tuple(sorted(set(people.columns[name]))) for name in ATTRIBUTES}
    attributes = {name: people.codes(name, values[name]) for name in ATTRIBUTES}
    labels = people.codes("two_year_recid", ("0", "1"))
    every = Examples(encode(people, features), labels, attributes, ids=kept)
    return Dataset("compas", every.take(train), every.take(test), CLASSES, values, features)


def _is_kept(table: Table, row: int) -> bool:
    columns = table.columns
    days = columns["days_b_screening_arrest"][row]
    try:
        near = days != "" and abs(float(days)) <= DAYS
    except ValueError:
        raise table.fault(row, f"days_b_screening_arrest needs a number, got {days!r}") from None
    return (
        near
        and columns["is_recid"][row] != "-1"
        and columns["c_charge_degree"][row] != "O"
        and columns["score_text"][row] != "N/A"
    )
