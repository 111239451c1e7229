from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from fl_testbed.scenario import CentralizedScenario, Scenario
from fl_testbed.scenario.json_schema import every_model
from fl_testbed.scenario.parts import SamplingSpec
from fl_testbed.scenario.rules import KrumSpec
from fl_testbed.scenario.spec import count_of


@example(percent=29, n=100)
@given(percent=st.integers(1, 99), n=st.integers(1, 1_000))
def test_a_fraction_is_rounded_down_as_on_paper(percent, n):
    # In floats 0.29 × 100 is 28.999999999999996.
    on_paper = int(Fraction(percent, 100) * n)
    if on_paper:
        assert count_of(percent / 100, n) == on_paper
    assert SamplingSpec(fraction=percent / 100).count(n) == max(1, on_paper)


@pytest.mark.parametrize(("value", "count"), [(0, 0), (1, 1), (1.0, 1), (7, 7), (0.5, 5)])
def test_one_and_above_is_a_count_and_below_one_a_fraction(value, count):
    spec = KrumSpec(kind="krum", n_malicious=value)
    assert count_of(spec.n_malicious, 10) == count
    assert f'"n_malicious":{value:g},' in spec.model_dump_json()  # 5, not 5.0


@pytest.mark.parametrize("value", [-1, 1.5, "2", True, float("nan")])
def test_nothing_else_is_a_number_of_clients(value):
    with pytest.raises(ValidationError):
        KrumSpec(kind="krum", n_malicious=value)


def test_what_may_be_null_is_so_by_default():
    # A resolved scenario leaves nulls out, so one that is no default would be lost.
    every = every_model((Scenario, CentralizedScenario))
    fields = [(m.__name__, k, f) for m in every for k, f in m.model_fields.items()]
    may_be_null = [(m, k, f) for m, k, f in fields if type(None) in get_args(f.annotation)]
    assert len(may_be_null) > 20
    assert not [(m, k) for m, k, f in may_be_null if f.default is not None]


def test_a_spec_cannot_change():
    spec = SamplingSpec(fraction=0.5)
    with pytest.raises(ValidationError, match="frozen"):
        spec.fraction = 1.0
