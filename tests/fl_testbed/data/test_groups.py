from dataclasses import replace

import numpy as np
import pytest

from fl_testbed.data import DataError, Dataset, Examples
from fl_testbed.data.groups import StyleGroups, groups_by, minority_groups, one_group
from fl_testbed.data.styles import inverted


class TestMinorityDefinition:
    def test_of_waterbirds_the_184_and_the_56_are_minorities(self):
        # WILDS' training counts: landbirds on land and water, waterbirds on land and water.
        counts = [3_498, 184, 56, 1_057]
        # With the number of clean groups for a divisor the 1,057 would be one too.
        assert minority_groups(counts) == {1, 2}

    def test_of_celeba_only_blond_men_are_a_minority(self):
        # Dark-haired women and men, blond women and men; 162,770 / 8 = 20,346.
        counts = [71_629, 66_874, 22_880, 1_387]
        assert sum(counts) == 162_770
        assert minority_groups(counts) == {3}

    def test_a_group_of_exactly_the_bound_is_none(self):
        assert minority_groups([30, 10]) == set()
        assert minority_groups([31, 9]) == {1}


def examples(labels: list[int], sex: list[int], race: list[int]) -> Examples:
    pixels = np.linspace(0, 1, len(labels), dtype=np.float32).reshape(-1, 1, 1, 1)
    codes = {"sex": np.array(sex), "race": np.array(race)}
    return Examples(pixels, np.array(labels), codes)


DATASET = Dataset(
    "people",
    examples([0, 0, 1, 0, 1, 0], [0, 1, 1, 0, 1, 0], [2, 0, 1, 2, 2, 0]),
    examples([1, 0], [1, 0], [0, 1]),
    ("poor", "rich"),
    {"sex": ("woman", "man"), "race": ("a", "b", "c")},
)


class TestOwnGroups:
    def test_a_group_is_a_combination_of_values_in_the_order_asked_for(self):
        groups = groups_by(DATASET, ["sex", "label"])
        assert groups.names == ("woman, poor", "woman, rich", "man, poor", "man, rich")
        assert groups.train.tolist() == [0, 2, 3, 0, 3, 0]
        assert groups.test.tolist() == [3, 0]
        turned = groups_by(DATASET, ["label", "race"])
        assert turned.names[:4] == ("poor, a", "poor, b", "poor, c", "rich, a")
        assert turned.train.tolist() == [2, 0, 4, 2, 5, 0]

    def test_values_that_are_merged_are_one_group(self):
        merge = {"race": {"a or c": ["c", "a"]}}
        groups = groups_by(DATASET, ["race", "label"], merge=merge)
        assert groups.names == ("a or c, poor", "a or c, rich", "b, poor", "b, rich")
        assert groups.train.tolist() == [0, 0, 3, 0, 1, 0]
        assert groups.test.tolist() == [1, 2]
        # n / 8 = 0.75 with two races, n / 12 with three: a merged group counts once.
        assert groups.minority == {2}

    @pytest.mark.parametrize(
        ("merge", "fault"),
        [
            ({"sex": {"all": ["woman"]}}, "merge has 'sex', which dataset.minority.by lacks"),
            ({"race": {"x": ["d"]}}, "there is no race 'd': .*merge.race can name a; b; c"),
            ({"race": {"x": ["a"], "y": ["b", "a"]}}, "merge.race names 'a' twice"),
        ],
    )
    def test_what_cannot_be_merged_is_refused(self, merge, fault):
        with pytest.raises(DataError, match=fault):
            groups_by(DATASET, ["race"], merge=merge)

    def test_by_default_the_rare_groups_are_minorities(self):
        # n / 8 = 0.75: only the group without an example is below.
        assert groups_by(DATASET, ["sex", "label"]).minority == {1}
        assert groups_by(DATASET, ["sex", "label"], ["man, poor"]).minority == {2}
        assert groups_by(DATASET, ["race"], []).minority == set()
        women = replace(DATASET, train=examples([0], [0], [0]))
        assert groups_by(women, ["sex"]).minority == {1}

    @pytest.mark.parametrize(
        ("by", "named", "fault"),
        [
            (["age"], None, "people has no attribute 'age': dataset.minority.by can name "
             "label, sex, race"),
            (["sex"], ["men"], "there is no group 'men': dataset.minority.groups can name "
             "woman; man"),
            (["sex", "sex"], None, "dataset.minority.by names an attribute twice: sex, sex"),
        ],
    )  # fmt: skip
    def test_what_there_is_not_is_refused_with_what_there_is(self, by, named, fault):
        with pytest.raises(DataError) as error:
            groups_by(DATASET, by, named)
        assert str(error.value) == fault

    def test_an_example_keeps_its_group_and_its_looks_whoever_holds_it(self):
        groups = groups_by(DATASET, ["sex"])
        rows = np.array([4, 0])
        for holder in (True, False):
            held = groups.dress(DATASET.train, rows, np.full(2, holder))
            assert held.groups.tolist() == [1, 0]
            assert held.labels.tolist() == [1, 0]
            assert held.inputs.flatten().tolist() == pytest.approx([0.8, 0])

    def test_test_examples_are_there_once(self):
        groups = groups_by(DATASET, ["sex"])
        assert groups.test_groups(DATASET.test, 1).tolist() == [1]
        tested = groups.test_examples(DATASET.test, 1)
        assert tested.groups.tolist() == [1]
        assert len(tested.inputs) == 1

    def test_a_single_group_holds_everything(self):
        groups = one_group(DATASET)
        assert groups.names == ("all",)
        assert groups.train.tolist() == [0] * 6
        assert groups.minority == set()


class TestStyleGroups:
    groups = StyleGroups(("plain", "inverted"), inverted)

    def test_the_holder_decides_on_the_looks_and_the_group(self):
        rows, marks = np.array([1, 2, 3]), np.array([False, True, False])
        held = self.groups.dress(DATASET.train, rows, marks)
        assert held.inputs.flatten().tolist() == pytest.approx([0.2, 0.6, 0.6])
        assert held.groups.tolist() == [0, 1, 0]
        assert held.labels.tolist() == [0, 1, 0]

    def test_test_images_are_there_once_for_each_style(self):
        tested = self.groups.test_examples(DATASET.test, None)
        assert tested.inputs.flatten().tolist() == [0, 1, 1, 0]
        assert tested.labels.tolist() == [1, 0, 1, 0]
        assert tested.groups.tolist() == [0, 0, 1, 1]
