from math import log

import pytest
import torch

from strategies.reweighting import tilted


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


HALF = doubles(0.5, 0.5)
LOSSES = doubles(log(2), log(6))


@pytest.mark.parametrize(
    ("tilt", "weights"), [(1, (0.25, 0.75)), (2, (0.1, 0.9)), (-1, (0.75, 0.25)), (0, (0.5, 0.5))]
)
def test_one_knob_from_robust_to_fair(tilt, weights):
    lift = tilted(LOSSES, HALF, {}, tilt=float(tilt))
    torch.testing.assert_close(lift.weights, doubles(*weights))
    assert lift.step == 1.0


def test_the_prior_multiplies_the_tilt():
    torch.testing.assert_close(
        tilted(LOSSES, doubles(0.9, 0.1), {}, tilt=1.0).weights, doubles(0.75, 0.25)
    )


def test_smoothing_divides_by_a_moving_average():
    # Relative to the largest loss e is (1/3, 1), its mean 2/3: Z begins there.
    first = tilted(LOSSES, HALF, {}, tilt=1.0, smoothing=0.25)
    assert first.step == pytest.approx(1)
    # Equal losses: the mean is 1, Z = 3/4 · 2/3 + 1/4 · 1 = 3/4.
    second = tilted(doubles(1, 1), HALF, first.memory, tilt=1.0, smoothing=0.25)
    assert second.step == pytest.approx(4 / 3)
    torch.testing.assert_close(second.weights, HALF)


@pytest.mark.parametrize(("tilt", "weights"), [(1.0, [0, 1]), (-1.0, [1, 0])])
def test_an_absurd_claim_decides_alone_and_breaks_nothing(tilt, weights):
    lift = tilted(doubles(1, 3e38), HALF, {}, tilt=tilt, smoothing=0.5)
    again = tilted(doubles(1, 1), HALF, lift.memory, tilt=tilt, smoothing=0.5)
    assert lift.weights.tolist() == weights
    # Z began at 1/2, all of it the claim's, or beyond all numbers.
    assert again.step == pytest.approx(4 / 3 if tilt > 0 else 0)
