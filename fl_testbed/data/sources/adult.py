"""Adult: who earns more than 50,000 dollars, from the census of 1994."""

from pathlib import Path

from fl_testbed.data.dataset import Dataset, Examples, numbered
from fl_testbed.data.sources.fetching import remedy
from fl_testbed.data.sources.files import find_files
from fl_testbed.data.sources.tables import Table, encode, fit_features, read_table

COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
)
NUMERIC = ("age", "education-num", "hours-per-week")
LOGARITHMIC = ("capital-gain", "capital-loss")  # mostly 0, up to 99,999
CATEGORIES = (
    "workclass",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native-country",
)
ATTRIBUTES = ("sex", "race")
CLASSES = ("<=50K", ">50K")


def load_adult(data_dir: Path | None) -> Dataset:
    """Load Adult: 32,561 + 16,281 people, 91 inputs, attributes sex and race.

    Left out are ``fnlwgt``, a sampling weight, and ``education``, which ``education-num`` repeats.
    A missing value (?) is a category of its own. Scaling is fitted on the training file.

    Raises:
        DataError: If its two files are not there or are broken.

    References:
        Becker and Kohavi, Adult, UCI Machine Learning Repository, 1996.
    """
    names = ("adult.data", "adult.test")
    paths = find_files("Adult", names, data_dir, ("adult",), remedy("adult"))
    used = (*NUMERIC, *LOGARITHMIC, *CATEGORIES, "income")
    # The test file begins with a line that is no row, and its labels end in a full stop.
    train, test = (read_table(path, used, names=COLUMNS, skip="|") for path in paths)
    features = fit_features(train, NUMERIC, LOGARITHMIC, CATEGORIES)
    values = {
        name: tuple(sorted({*train.columns[name], *test.columns[name]})) for name in ATTRIBUTES
    }

    def examples(table: Table) -> Examples:
        ending = "." if table is test else ""
        labels = table.codes("income", [name + ending for name in CLASSES])
        attributes = {name: table.codes(name, values[name]) for name in ATTRIBUTES}
        return Examples(encode(table, features), labels, attributes)

    parts = numbered(examples(train), examples(test))
    return Dataset("adult", *parts, CLASSES, values, features)
