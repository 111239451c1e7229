import gzip
import math

import numpy as np
import pytest

from fl_testbed.data import DataError
from fl_testbed.data.sources.tables import encode, fit_features, read_table

TABLE = "id,sex, age\n1, man, 31\n2,woman,12.5\n\n3,man,70\n"


@pytest.fixture
def table(tmp_path):
    """Write a CSV file and read some of its columns."""

    def table(text: str, *columns: str, **options):
        path = tmp_path / "people.csv"
        path.write_text(text, encoding="utf-8")
        return read_table(path, columns, **options)

    return table


def lines_of(error, tmp_path) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text.removeprefix(f"{tmp_path}/")


def test_columns_are_read_by_name_and_white_space_does_not_count(table):
    people = table(TABLE, "age", "sex")
    assert people.columns == {"age": ["31", "12.5", "70"], "sex": ["man", "woman", "man"]}
    assert people.lines == [2, 3, 5]
    assert len(people) == 3


def test_a_file_without_a_header_is_given_the_names(table):
    people = table("|note\n1,man\n2,woman\n", "sex", names=("id", "sex"), skip="|")
    assert people.columns == {"sex": ["man", "woman"]}
    assert people.lines == [2, 3]


def test_quoted_values_may_hold_commas(table):
    assert table('name,x\n"Doe, J.",1\n', "name").columns == {"name": ["Doe, J."]}


def test_a_row_ends_at_a_line_s_end_alone(table):
    people = table('id,sex\n1,a\x0cb\n2,"c\nd"\n', "sex")
    assert people.columns["sex"] == ["a\x0cb", "c\nd"]


def test_gzipped_tables_are_read_too(tmp_path):
    path = tmp_path / "people.csv.gz"
    path.write_bytes(gzip.compress(TABLE.encode()))
    assert len(read_table(path, ["id"])) == 3
    path.write_bytes(gzip.compress(TABLE.encode())[:-9])
    with pytest.raises(DataError, match="broken gzip file"):
        read_table(path, ["id"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "people.csv: is empty"),
        ("id,sex\n", "people.csv: has no rows"),
        ("id,age\n1,2\n", "people.csv: has no column 'sex'; its columns: id, age"),
        (
            "id,sex\n1,man\n2\n",
            "people.csv:3: needs 2 columns, has 1: copy it again",
        ),
        (
            "id,sex\n1,man,x\n",
            "people.csv:2: needs 2 columns, has 3: copy it again",
        ),
    ],
)
def test_a_broken_table_is_one_line_that_says_where(table, tmp_path, text, fault):
    with pytest.raises(DataError) as error:
        table(text, "sex")
    assert lines_of(error, tmp_path) == fault


@pytest.mark.parametrize(
    ("use", "fault"),
    [
        (
            lambda people: people.codes("sex", ("man",)),
            "people.csv:3: sex needs one of man, got 'woman'",
        ),
        (
            lambda people: people.numbers("sex"),
            "people.csv:2: sex needs a number, got 'man'",
        ),
        (
            lambda people: people.check_unique("sex"),
            "people.csv:5: sex man is in line 2 already",
        ),
        (
            lambda people: people.take([2, 1]).codes("sex", ("man",)),
            "people.csv:3: sex needs one of man, got 'woman'",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_line(table, tmp_path, use, fault):
    with pytest.raises(DataError) as error:
        use(table(TABLE, "id", "sex", "age"))
    assert lines_of(error, tmp_path) == fault


@pytest.mark.parametrize("value", ["nan", "inf", "1e39", "", "1 2"])  # 1e39: of no float32
def test_only_finite_numbers_are_numbers(table, value):
    with pytest.raises(DataError, match="needs a number"):
        table(f"id,age\n1,{value}\n", "age").numbers("age")


class TestEncoding:
    text = "n,gain,kind\n1,0,a\n3,0,b\n5,0,b\n"

    def fitted(self, table):
        train = table(self.text, "n", "gain", "kind")
        return train, fit_features(train, ["n"], ["gain"], ["kind"])

    def test_numbers_are_standardised_and_categories_have_an_input_for_each_value(self, table):
        train, features = self.fitted(table)
        encoded = encode(train, features)
        assert encoded.dtype == np.float32
        assert encoded[:, 0].tolist() == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5)])
        assert encoded[:, 2:].tolist() == [[1, 0], [0, 1], [0, 1]]

    def test_a_column_without_spread_is_only_centred(self, table):
        train, features = self.fitted(table)
        assert encode(train, features)[:, 1].tolist() == [0, 0, 0]

    def test_the_training_rows_alone_decide_on_scale_and_categories(self, table):
        _, features = self.fitted(table)
        test = table("n,gain,kind\n103,6,c\n", "n", "gain", "kind")
        deviation = math.sqrt(8 / 3)
        expected = [(103 - 3) / deviation, math.log(7), 0, 0]
        assert encode(test, features)[0].tolist() == pytest.approx(expected)

    def test_a_row_of_inputs_says_what_was_encoded(self, table):
        text = "n,gain,kind,place\n1,20,a,x\n3,0,b,z\n12.5,5,b,y\n"
        columns = ("n", "gain", "kind", "place")
        people = table(text, *columns)
        features = fit_features(people, ["n"], ["gain"], ["kind", "place"])
        for row, inputs in enumerate(encode(people, features)):
            said = [features[column].value_of(inputs) for column in columns]
            assert said == [people.columns[column][row] for column in columns]

    def test_a_value_is_written_as_the_encoding_would(self, table):
        train, features = self.fitted(table)
        row = encode(train, features)[1]
        for column, value in (("n", 3.0), ("gain", 0.0), ("kind", "b")):
            for place, number in features[column].inputs_of(value).items():
                assert row[place] == pytest.approx(number)

    @pytest.mark.parametrize(
        ("column", "value", "fault"),
        [
            ("kind", "z", "needs one of a, b, got 'z'"),
            ("n", "three", "needs a number, got 'three'"),
            ("gain", -1.0, "needs a number > -1, got -1.0"),
        ],
    )
    def test_a_value_that_cannot_be_encoded_is_refused(self, table, column, value, fault):
        with pytest.raises(ValueError, match="needs") as error:
            self.fitted(table)[1][column].inputs_of(value)
        assert str(error.value) == fault
