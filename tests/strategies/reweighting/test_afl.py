from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from strategies.reweighting import afl, drfa, project_to_simplex

TWO = torch.tensor([4, 9])


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


HALF = doubles(0.5, 0.5)


class TestProjection:
    @pytest.mark.parametrize(
        ("values", "mass", "nearest"),
        [
            ((0.5, 0.7), 1.0, (0.4, 0.6)),  # 0.2 too much, taken off evenly
            ((0.5, 1.7), 1.0, (0.0, 1.0)),  # evenly would be -0.1
            ((0.3, 0.2, -5.0), 1.0, (0.55, 0.45, 0.0)),
            ((0.5, 0.7), 0.4, (0.1, 0.3)),
        ],
    )
    def test_takes_one_threshold_off_all_and_cuts_at_zero(self, values, mass, nearest):
        torch.testing.assert_close(project_to_simplex(doubles(*values), mass), doubles(*nearest))

    def test_an_absurd_entry_takes_the_whole_mass(self):
        assert project_to_simplex(doubles(1, 3e38, 2)).tolist() == [0, 1, 0]

    @given(st.lists(st.floats(-3, 3), min_size=1, max_size=6))
    def test_no_other_point_of_the_simplex_is_nearer(self, values):
        point = project_to_simplex(doubles(*values))
        assert point.sum().item() == pytest.approx(1)
        # At the nearest point the way back makes no acute angle with any way along the simplex.
        for corner in torch.eye(len(values), dtype=torch.float64):
            assert (doubles(*values) - point) @ (corner - point) <= 1e-9


def test_the_first_round_averages_by_the_prior_and_then_steps():
    step = partial(afl, step_size=0.1)
    first = step(TWO, doubles(1, 3), HALF, {})
    torch.testing.assert_close(first.weights, HALF)
    # 0.5 + 0.1 and 0.5 + 0.3 are 0.4 too much together.
    second = step(TWO, doubles(0, 0), HALF, first.memory)
    torch.testing.assert_close(second.weights, doubles(0.4, 0.6))
    assert second.step == 1.0


def test_losses_accumulate_over_rounds():
    step = partial(afl, step_size=0.1)
    memory = step(TWO, doubles(1, 3), HALF, {}).memory
    memory = step(TWO, doubles(1, 3), HALF, memory).memory
    torch.testing.assert_close(step(TWO, doubles(1, 3), HALF, memory).weights, doubles(0.3, 0.7))


def test_who_takes_part_shares_what_they_had_together():
    three, third = torch.tensor([4, 7, 9]), torch.full((3,), 1 / 3).double()
    memory = afl(three, doubles(0, 0.2, 0.4), third, {}, step_size=1.0).memory
    # (1/3, 1/3 + 0.2, 1/3 + 0.4) less 0.2: (2/15, 1/3, 8/15).
    away = afl(TWO, doubles(0.1, 0), HALF, memory, step_size=1.0)
    torch.testing.assert_close(away.weights, doubles(0.2, 0.8))
    # (2/15 + 0.1, 8/15) less 0.05 each; client 7 keeps its third.
    back = afl(three, torch.zeros(3).double(), third, away.memory, step_size=1.0)
    torch.testing.assert_close(back.weights, doubles(11 / 60, 1 / 3, 29 / 60))


def test_a_client_that_joins_later_begins_with_its_prior():
    memory = afl(TWO, doubles(1, 3), HALF, {}, step_size=0.1).memory  # 0.4 and 0.6
    lift = afl(torch.tensor([9, 11]), doubles(0, 0), HALF, memory, step_size=0.1)
    torch.testing.assert_close(lift.weights, doubles(6 / 11, 5 / 11))


def test_a_round_of_clients_without_weight_falls_back_on_the_prior():
    three, third = torch.tensor([4, 7, 9]), torch.full((3,), 1 / 3).double()
    memory = afl(three, doubles(0, 0, 9), third, {}, step_size=1.0).memory
    lift = afl(torch.tensor([4, 7]), doubles(1, 1), doubles(0.25, 0.75), memory, step_size=1.0)
    torch.testing.assert_close(lift.weights, doubles(0.25, 0.75))


def test_an_absurd_claim_takes_all_the_weight_and_breaks_nothing():
    memory = afl(TWO, doubles(1, 3e38), HALF, {}, step_size=0.1).memory
    after = afl(TWO, doubles(5, 0), HALF, memory, step_size=0.1)
    assert after.weights.tolist() == [0, 1]
    # A λ of 1 is known like any other: (0, 1) and a gain of (0.5, 0) are 0.5 too much together.
    later = afl(TWO, doubles(0, 0), HALF, after.memory, step_size=0.1)
    torch.testing.assert_close(later.weights, doubles(0.25, 0.75))


class TestDrfa:
    def test_a_step_counts_for_all_local_steps(self):
        step = partial(drfa, rng=np.random.default_rng(0), step_size=0.05, local_steps=2)
        memory = step(TWO, doubles(1, 3), HALF, {}).memory
        torch.testing.assert_close(
            step(TWO, doubles(1, 3), HALF, memory).weights, doubles(0.4, 0.6)
        )
        joined = step(torch.tensor([9, 11]), doubles(0, 0), HALF, memory)
        torch.testing.assert_close(joined.weights, doubles(6 / 11, 5 / 11))

    def test_clients_weigh_by_how_often_they_are_drawn(self):
        step = partial(drfa, TWO, prior=HALF, step_size=0.1, local_steps=1)
        memory = step(doubles(0, 6), memory={}, rng=np.random.default_rng(0)).memory
        draw = partial(step, doubles(0, 0), memory=memory, n_drawn=3)
        weights = [draw(rng=np.random.default_rng(k)).weights for k in range(400)]
        counts = torch.stack(weights) * 3
        torch.testing.assert_close(counts, counts.round())
        assert (counts.sum(dim=1) == 3).all()
        mixture = doubles(0.2, 0.8)
        torch.testing.assert_close(torch.stack(weights).mean(dim=0), mixture, atol=0.04, rtol=0)
