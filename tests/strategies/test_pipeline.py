from functools import partial

import numpy as np
import pytest
import torch

from strategies.aggregation import (
    Aggregate,
    fltrust,
    krum,
    mean,
    multi_krum,
    norm_clipping,
    trimmed_mean,
)
from strategies.pipeline import Pipeline, RoundFacts
from strategies.reweighting import Lift, agnostic, q_fedavg


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def no_server_data():
    raise AssertionError("nobody asked for the server's update")


def round_of(n: int, **changes) -> RoundFacts:
    facts = {
        "round_": 1,
        "clients": torch.arange(n),
        "prior": torch.full((n,), 1 / n, dtype=torch.float64),
        "losses": torch.full((n,), torch.nan, dtype=torch.float64),
        "server_update": no_server_data,
        "evaluate": lambda update: (0.0, 0.0),
        "rng": np.random.default_rng(0),
    }
    return RoundFacts(**{**facts, **changes})


def lift_to(*weights: float, step: float = 1.0):
    return lambda memory: Lift(doubles(*weights), memory, step=step)


LINE = torch.tensor([[0.0], [1.0], [6.0], [9.0], [13.0]])


def test_without_a_reweighting_the_rule_gets_the_prior():
    facts = round_of(2, prior=doubles(0.25, 0.75))
    step = Pipeline(mean)(torch.tensor([[0.0], [4.0]]), facts, {})
    assert step.result.update.tolist() == [3.0]
    assert step.memory == {}
    assert not step.restart


def test_a_rule_is_handed_the_facts_that_it_names_and_no_others():
    def asks(updates, round_, clients):
        assert (round_, clients.tolist()) == (1, [0, 1])
        return mean(updates)

    Pipeline(asks)(torch.ones(2, 1), round_of(2), {})


def test_a_bound_fact_stays_as_it_was_bound():
    bound = partial(fltrust, reference=torch.tensor([2.0]))
    step = Pipeline(bound)(torch.tensor([[1.0], [1.0]]), round_of(2), {})
    assert step.result.update.tolist() == [2.0]


def test_the_server_trains_only_for_rules_that_name_a_reference():
    facts = round_of(2, server_update=lambda: torch.tensor([3.0]))
    step = Pipeline(fltrust)(torch.tensor([[1.0], [-1.0]]), facts, {})
    assert step.result.update.tolist() == [3.0]


def test_a_parameter_that_nobody_can_fill_is_an_error_at_once():
    with pytest.raises(TypeError, match="krum needs n_malicious, which is not a fact of a round"):
        Pipeline(krum)


def test_losses_are_asked_for_only_where_somebody_names_them():
    assert not Pipeline(mean).needs_losses
    assert Pipeline(mean, partial(agnostic, step_size=1.0)).needs_losses


def test_filter_then_lift_judges_plain_updates_and_averages_by_the_lift():
    rule = partial(multi_krum, n_malicious=1, n_selected=2)  # selects 1 and 9
    step = Pipeline(rule, lift_to(0.1, 0.2, 0.1, 0.6, 0.0))(LINE.clone(), round_of(5), {})
    torch.testing.assert_close(step.result.update, torch.tensor([7.0]))
    torch.testing.assert_close(step.result.weights, doubles(0, 0.25, 0, 0.75, 0))


def test_lift_then_filter_judges_scaled_updates():
    # Scaled by 5 · lift the rows are 0, 1, 6, 45, 13: Krum now picks 1 (1 + 25).
    rule = partial(krum, n_malicious=1)
    lift = lift_to(0.2, 0.2, 0.2, 1.0, 0.2)
    step = Pipeline(rule, lift, "lift_then_filter")(LINE.clone(), round_of(5), {})
    assert step.result.update.tolist() == [1.0]
    assert step.result.weights.tolist() == [0, 1, 0, 0, 0]


def test_lift_then_filter_with_the_mean_is_the_lifted_mean():
    updates, lift = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), lift_to(0.75, 0.25)
    first = Pipeline(mean, lift)(updates.clone(), round_of(2), {})
    last = Pipeline(mean, lift, "lift_then_filter")(updates.clone(), round_of(2), {})
    torch.testing.assert_close(last.result.update, first.result.update)
    torch.testing.assert_close(last.result.weights, doubles(0.75, 0.25))


def test_lift_then_filter_reports_the_lift_and_the_filter_together():
    # Rows 0, 2 · 4/3 and 0.5 · 8/3: trimming keeps the last alone.
    rule = partial(trimmed_mean, n_malicious=1)
    updates = torch.tensor([[0.0], [2.0], [0.5]])
    lift = lift_to(1 / 9, 4 / 9, 4 / 9)
    step = Pipeline(rule, lift, "lift_then_filter")(updates, round_of(3), {})
    torch.testing.assert_close(step.result.weights, doubles(0, 0, 1))
    torch.testing.assert_close(step.result.update, torch.tensor([2 / 3]))


def test_a_lifted_giant_stays_finite():
    updates = torch.tensor([[3e38], [1.0], [1.0], [1.0], [1.1]])
    rule, lift = partial(krum, n_malicious=1), lift_to(0.6, 0.1, 0.1, 0.1, 0.1)
    step = Pipeline(rule, lift, "lift_then_filter")(updates, round_of(5), {})
    torch.testing.assert_close(step.result.update, torch.tensor([0.5]))


def test_the_lifts_step_multiplies_the_update():
    step = Pipeline(mean, lift_to(0.5, 0.5, step=0.25))(torch.full((2, 1), 4.0), round_of(2), {})
    assert step.result.update.tolist() == [1.0]


def test_contributions_are_shares_of_the_pull_along_the_update():
    # The update is (2, 0): the pulls are 0.5 · 3 · 2 and 0.5 · 1 · 2.
    updates = torch.tensor([[3.0, 1.0], [1.0, -1.0]])
    step = Pipeline(mean)(updates, round_of(2), {})
    torch.testing.assert_close(step.contribution, doubles(0.75, 0.25))


def test_contributions_are_missing_where_nothing_moves():
    step = Pipeline(mean)(torch.zeros(2, 3), round_of(2), {})
    assert step.contribution.isnan().all()


def test_a_rejected_giant_leaves_the_others_their_contributions():
    updates = torch.tensor([[3e38], [-3e38], [1.0], [1.1], [1.2], [1.3], [1.4]])
    step = Pipeline(partial(multi_krum, n_malicious=2))(updates, round_of(7), {})
    assert step.contribution[:2].tolist() == [0, 0]
    assert step.contribution.sum().item() == pytest.approx(1)


def test_squared_norms_of_giants_are_finite():
    facts = round_of(2, losses=doubles(1, 1))
    rule = partial(q_fedavg, q=1.0, lipschitz=1.0)
    step = Pipeline(norm_clipping, rule)(torch.tensor([[1e30], [1.0]]), facts, {})
    assert step.result.update.isfinite().all()


def test_what_a_reweighting_remembers_comes_back():
    pipeline = Pipeline(mean, partial(agnostic, step_size=1.0))
    facts = round_of(2, losses=doubles(0, 1))
    first = pipeline(torch.ones(2, 1), facts, {})
    second = pipeline(torch.ones(2, 1), facts, first.memory)
    assert second.result.weights[1] > first.result.weights[1]


def test_the_result_is_an_aggregate():
    assert isinstance(Pipeline(mean)(torch.ones(2, 1), round_of(2), {}).result, Aggregate)
