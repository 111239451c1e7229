import pytest
import torch

from strategies.reweighting import q_fedavg


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


LOSSES, PRIOR = doubles(1, 3), doubles(0.5, 0.5)
UPDATES = torch.tensor([[0.5, 0.0], [0.5, -0.5]])  # squares 1/4 and 1/2


def test_q_of_zero_is_fedavg():
    lift = q_fedavg(LOSSES, UPDATES, doubles(0.3, 0.7), q=0.0, lipschitz=10.0)
    torch.testing.assert_close(lift.weights, doubles(0.3, 0.7))
    assert lift.step == pytest.approx(1)


def test_weights_grow_with_the_loss_to_the_power_q():
    lift = q_fedavg(LOSSES, UPDATES, PRIOR, q=2.0, lipschitz=2.0)
    torch.testing.assert_close(lift.weights, doubles(0.1, 0.9))


def test_the_step_is_the_papers():
    # q = 2, L = 4, d_k = 4 u_k: h = q F^(q-1) ||d||^2 + L F^q = 2·1·4 + 4·1 = 12 for the first,
    # 2·3·8 + 4·9 = 84 for the second. The paper's step of the mean update is L Σ F^q / Σ h.
    lift = q_fedavg(LOSSES, UPDATES, PRIOR, q=2.0, lipschitz=4.0)
    assert lift.step == pytest.approx(4 * (1 + 9) / (12 + 84))


def test_the_weights_alone_take_a_whole_step():
    lift = q_fedavg(LOSSES, UPDATES, PRIOR, q=2.0, lipschitz=2.0, own_step=False)
    torch.testing.assert_close(lift.weights, doubles(0.1, 0.9))
    assert lift.step == 1


def test_a_perfect_client_is_no_division_by_zero():
    lift = q_fedavg(doubles(0, 1), UPDATES, PRIOR, q=0.5, lipschitz=10.0)
    assert lift.weights.sum().item() == pytest.approx(1)
    assert 0 < lift.step < 1


def test_clients_that_are_all_perfect_count_equally():
    lift = q_fedavg(doubles(0, 0), UPDATES, PRIOR, q=2.0, lipschitz=10.0)
    torch.testing.assert_close(lift.weights, PRIOR)


def test_an_absurd_claim_takes_all_the_weight_and_breaks_nothing():
    lift = q_fedavg(doubles(1, 3e38), UPDATES, PRIOR, q=10.0, lipschitz=10.0)
    assert lift.weights.tolist() == [0.0, 1.0]
    assert 0 < lift.step <= 1


def test_an_absurd_claim_of_a_client_that_does_not_count_changes_nothing():
    claims, prior = doubles(1, 3, 3e38), doubles(0.5, 0.5, 0)
    lift = q_fedavg(claims, torch.cat([UPDATES, torch.ones(1, 2)]), prior, q=10.0, lipschitz=2.0)
    others = q_fedavg(LOSSES, UPDATES, PRIOR, q=10.0, lipschitz=2.0)
    torch.testing.assert_close(lift.weights, doubles(*others.weights.tolist(), 0))
    assert lift.step == pytest.approx(others.step)
