"""Adult, COMPAS, and a user's own table."""

import gzip

import numpy as np
import pytest
from published import assert_sound, write

from fl_testbed.data import DataError
from fl_testbed.data.groups import groups_by
from fl_testbed.data.sources import Meanings, load_adult, load_compas, load_csv

ADULT_TRAIN = """\
39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, \
2174, 0, 40, United-States, <=50K
50, ?, 83311, Bachelors, 13, Married-civ-spouse, Exec-managerial, Wife, Black, Female, \
0, 0, 13, United-States, >50K

"""
ADULT_TEST = """\
|1x3 Cross validator
25, Private, 226802, 11th, 7, Never-married, Machine-op-inspct, Own-child, Black, Male, \
0, 0, 40, Cuba, <=50K.
44, State-gov, 160323, Some-college, 10, Married-civ-spouse, Adm-clerical, Wife, White, Female, \
7688, 0, 40, United-States, >50K.

"""


class TestAdult:
    @pytest.fixture
    def folder(self, tmp_path):
        write(tmp_path / "adult" / "adult.data", ADULT_TRAIN)
        write(tmp_path / "adult" / "adult.test", ADULT_TEST)
        return tmp_path / "adult"

    def test_the_published_format_is_read(self, folder):
        adult = load_adult(folder.parent)
        assert_sound(adult)
        assert adult.classes == ("<=50K", ">50K")
        assert adult.train.labels.tolist() == adult.test.labels.tolist() == [0, 1]
        assert adult.attributes == {"sex": ("Female", "Male"), "race": ("Black", "White")}
        assert adult.train.attributes["sex"].tolist() == [1, 0]
        assert adult.test.attributes["race"].tolist() == [0, 1]
        assert not adult.holds_images

    def test_training_rows_alone_are_fitted_on(self, folder):
        adult = load_adult(folder.parent)
        assert adult.train.inputs[:, adult.features["age"].place].tolist() == [-1, 1]
        age = (25 - 44.5) / 5.5
        assert adult.test.inputs[0, adult.features["age"].place] == pytest.approx(age)
        # Cuba and Private occur in the test rows only: no input stands for them.
        workclass = adult.features["workclass"]
        assert workclass.values == ("?", "State-gov")
        assert adult.test.inputs[0, workclass.place :][:2].tolist() == [0, 0]

    def test_the_sampling_weight_and_the_repeated_education_are_left_out(self, folder):
        assert not {"fnlwgt", "education", "income"} & load_adult(folder.parent).features.keys()

    @pytest.mark.parametrize(
        ("name", "old", "new", "fault"),
        [
            ("adult.data", "50, ?", "fifty, ?", ":2: age needs a number, got 'fifty'"),
            ("adult.data", ">50K", "50K", ":2: income needs one of <=50K, >50K, got '50K'"),
            ("adult.test", ">50K.", ">50K", ":3: income needs one of <=50K., >50K., got"),
            ("adult.data", "13, Never-married, ", "", ":1: needs 15 columns, has 13"),
        ],
    )
    def test_a_broken_row_is_named(self, folder, name, old, new, fault):
        path = folder / name
        path.write_text(path.read_text().replace(old, new, 1))
        with pytest.raises(DataError) as error:
            load_adult(folder.parent)
        assert str(error.value).startswith(f"{path}{fault}")

    def test_without_its_files_it_says_where_to_get_them(self, tmp_path):
        with pytest.raises(DataError, match=r"adult.data, adult.test .*archive.ics.uci.edu"):
            load_adult(tmp_path)

    def test_the_shared_files_have_the_counts_of_their_readme(self, data_dir):
        adult = load_adult(data_dir)
        assert_sound(adult)
        assert adult.input_shape == (91,)
        groups = groups_by(adult, ["sex", "race", "label"])
        table = [
            (107, 12, 63, 3),
            (303, 43, 145, 26),
            (1_465, 90, 711, 42),
            (103, 6, 41, 5),
            (7_614, 1_028, 3_871, 514),
            (168, 24, 77, 16),
            (460, 233, 202, 107),
            (1_272, 297, 671, 137),
            (143, 19, 69, 20),
            (13_085, 6_089, 6_585, 2_976),
        ]
        assert groups.names[2] == "Female, Asian-Pac-Islander, <=50K"
        counts = [np.bincount(part).reshape(10, 2) for part in (groups.train, groups.test)]
        assert np.hstack(counts).tolist() == [list(row) for row in table]
        # Women above 50,000 dollars are the minority by the paper's definition.
        sexes = groups_by(adult, ["sex", "label"])
        assert [sexes.names[group] for group in sexes.minority] == ["Female, >50K"]


COMPAS_HEADER = (
    "id,name,sex,age,age_cat,race,juv_fel_count,juv_misd_count,juv_other_count,priors_count,"
    "days_b_screening_arrest,c_charge_degree,is_recid,score_text,priors_count,two_year_recid\n"
)


def compas_row(
    id_: int, sex: str = "Male", days: str = "-1", degree: str = "F", recid: str = "1",
    text: str = "Low", label: int = 0, age: int = 30,
) -> str:  # fmt: skip
    person = f'{id_},"doe, j",{sex},{age},25 - 45,Other,0,0,1,3'
    return f"{person},{days},{degree},{recid},{text},3,{label}\n"


class TestCompas:
    def load(self, tmp_path, rows: str, seed: int = 0):
        write(tmp_path / "compas" / "compas-scores-two-years.csv", COMPAS_HEADER + rows)
        return load_compas(tmp_path, np.random.default_rng(seed))

    def test_the_published_format_is_read_and_split_by_the_seed(self, tmp_path):
        rows = "".join(
            compas_row(i, sex="Female" if i % 3 == 0 else "Male", label=i % 2) for i in range(20)
        )
        compas = self.load(tmp_path, rows)
        assert_sound(compas)
        assert (len(compas.train), len(compas.test)) == (16, 4)
        for part in (compas.train, compas.test):
            assert (part.labels == part.ids % 2).all()
            assert (part.attributes["sex"] == (part.ids % 3 > 0)).all()
        assert compas.test.ids.tolist() != self.load(tmp_path, rows, seed=1).test.ids.tolist()

    def test_scaling_is_fitted_on_those_trained_on(self, tmp_path):
        compas = self.load(tmp_path, "".join(compas_row(i, age=20 + i**2) for i in range(10)))
        ages = compas.train.inputs[:, compas.features["age"].place]
        assert [ages.mean(), ages.std()] == pytest.approx([0, 1], abs=1e-6)

    @pytest.mark.parametrize(
        "dropped",
        [
            {"days": "31"},
            {"days": "-31"},
            {"days": ""},
            {"degree": "O"},
            {"recid": "-1"},
            {"text": "N/A"},
        ],
    )
    def test_propublica_s_filter_is_applied(self, tmp_path, dropped):
        kept = compas_row(1, days="30") + compas_row(2, days="-30") + compas_row(3, recid="0")
        compas = self.load(tmp_path, compas_row(4, **dropped) + kept)
        assert sorted([*compas.train.ids, *compas.test.ids]) == [1, 2, 3]

    @pytest.mark.parametrize(
        ("rows", "fault"),
        [
            (compas_row(1) + compas_row(1), ":3: id 1 is in line 2 already"),
            (compas_row(1, days="soon"), ":2: days_b_screening_arrest needs a number"),
            (compas_row(1) + compas_row(2, label=3), "two_year_recid needs one of 0, 1, got '3'"),
            (compas_row(1, text="N/A"), "has 0 rows that ProPublica's filter keeps"),
        ],
    )
    def test_a_broken_row_is_named(self, tmp_path, rows, fault):
        with pytest.raises(DataError) as error:
            self.load(tmp_path, rows)
        assert fault in str(error.value)


def test_gzipped_files_are_read_and_a_cut_one_is_refused(tmp_path):
    folder = tmp_path / "adult"
    write(folder / "adult.test", ADULT_TEST)
    path = folder / "adult.data.gz"
    path.write_bytes(gzip.compress(ADULT_TRAIN.encode()))
    assert len(load_adult(tmp_path).train) == 2
    path.write_bytes(gzip.compress(ADULT_TRAIN.encode())[:-5])
    with pytest.raises(DataError, match=r"adult.data.gz: broken gzip file"):
        load_adult(tmp_path)


class TestCsv:
    @pytest.fixture
    def path(self, tmp_path):
        """Six people from three towns, two of them for testing."""
        rows = [
            "age,ward,dose,town,cured,part",
            "20,1,0,Ayr,no,train",
            "40,2,9,Ayr,yes,train",
            "60,1,0,Ely,no,test",
            "20,2,0,Ely,yes,train",
            "40,1,99,Rye,no,train",
            "90,3,0,Rye,yes,test",
        ]
        path = tmp_path / "people.csv"
        path.write_text("\n".join(rows))
        return path

    def load(self, path, seed: int = 0, options=None, **meanings):
        meanings = {"label": "cured", "attributes": ["town"], "split": "part"} | meanings
        rng = np.random.default_rng(seed)
        return load_csv(path.parent, rng, path.name, Meanings(**meanings), **(options or {}))

    def test_every_other_column_is_an_input_fitted_on_the_training_rows(self, path):
        people = self.load(path)
        assert_sound(people)
        assert people.name == "people"
        assert people.classes == ("no", "yes")
        assert people.attributes == {"town": ("Ayr", "Ely", "Rye")}
        assert people.train.labels.tolist() == [0, 1, 1, 0]
        assert people.test.attributes["town"].tolist() == [1, 2]
        assert list(people.features) == ["age", "ward", "dose", "town"]
        assert people.train.inputs[:, 0].tolist() == [-1, 1, -1, 1]
        assert people.test.inputs[:, 0].tolist() == [3, 6]
        assert people.features["town"].values == ("Ayr", "Ely", "Rye")

    def test_classes_that_are_whole_numbers_are_in_the_order_of_size(self, tmp_path):
        (tmp_path / "n.csv").write_text("n,x\n10,1\n2,1\n3,2\n2,3\n")
        numbered = self.load(tmp_path / "n.csv", label="n", attributes=[], split=None)
        assert numbered.classes == ("2", "3", "10")

    def test_columns_can_be_categories_logarithmic_or_left_out(self, path):
        options = {"categories": ["ward"], "logarithmic": ["dose"], "leave_out": ["town", "age"]}
        people = self.load(path, options=options)
        assert people.features["ward"].values == ("1", "2")
        ward = people.features["ward"].place
        assert people.test.inputs[:, ward : ward + 2].tolist() == [[1, 0], [0, 0]]  # 3: never seen
        doses = people.train.inputs[:, people.features["dose"].place]
        step = doses[1] - doses[0]  # of 0, 9, 0 and 99
        assert (doses - doses[0]).tolist() == pytest.approx([0, step, 0, 2 * step], rel=1e-5)
        assert people.features.keys() == {"ward", "dose"}
        assert people.attributes.keys() == {"town"}

    def test_inputs_stay_with_their_labels_where_the_seed_draws_the_test_set(self, path):
        drawn = set()
        for seed in range(5):
            people = self.load(
                path, seed, client="town", split=None, options={"leave_out": ["part"]}
            )
            assert_sound(people)
            assert not set(people.train.clients) & set(people.test.clients)
            drawn.add(tuple(people.test.clients))
            for examples in (people.train, people.test):
                ages = [people.features["age"].value_of(row) for row in examples.inputs]
                expected = {0: "20", 1: "40", 2: "60", 3: "20", 4: "40", 5: "90"}
                assert ages == [expected[row] for row in examples.ids]
        assert len(drawn) > 1

    @pytest.mark.parametrize(
        ("old", "new", "options", "fault"),
        [
            (
                "60,",
                ",",
                {},
                ":4: age is '' here and a number elsewhere: correct it, or name it",
            ),
            ("no,", ",", {}, ":2: cured is empty: fill it in, or leave the row out"),
            ("Ely,", ",", {}, ":4: town is empty: fill it in, or leave the row out"),
            ("Ely,", "\x1b[2J,", {}, r":4: town has control characters in it: '\x1b[2J'"),
            ("", "", {"logarithmic": ["town"]}, ":2: town needs a number, got 'Ayr'"),
            ("99", "-1", {"logarithmic": ["dose"]}, ":6: dose needs numbers > -1 for log"),
            ("", "", {"leave_out": ["city"]}, ": has no column 'city'; its columns: age, ward"),
            ("dose", "age", {}, ": has 2 columns of the name 'age'"),
            ("dose", "", {}, ": has a column without a name, as pandas writes an index: save"),
            ("test", "dev", {}, ":4: part needs one of train, test, got 'dev'"),
            (
                "",
                "",
                {"leave_out": ["age", "ward", "dose", "town"]},
                ": has no column left for the inputs",
            ),
        ],
    )
    def test_what_does_not_fit_is_one_line(self, path, old, new, options, fault):
        path.write_text(path.read_text().replace(old, new, 1))
        with pytest.raises(DataError) as error:
            self.load(path, options=options)
        assert str(error.value).startswith(f"{path}{fault}")

    def test_a_table_that_lies_where_one_is_needs_to_be_told_of(self, path, monkeypatch):
        monkeypatch.chdir(path.parent)
        with pytest.raises(DataError, match=r"set FL_TESTBED_DATA; the one in the current folder "):
            load_csv(None, np.random.default_rng(0), path.name, Meanings())

    def test_names_of_rows_are_no_category(self, path):
        rows = ["name,cured"] + [f"p{i},{i % 2}" for i in range(101)]
        path.write_text("\n".join(rows))
        with pytest.raises(DataError, match="name has 101 values that are not numbers, like 'p0'"):
            self.load(path, split=None, attributes=[])
        options = {"categories": ["name"]}
        assert len(self.load(path, split=None, attributes=[], options=options).features) == 1
