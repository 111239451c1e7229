import numpy as np
import pytest
import torch

from strategies.aggregation import dnc
from strategies.aggregation.dnc import n_dropped


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_drops_who_stands_out_along_the_largest_spread():
    updates = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0], [50.0, 1.0]])
    result = dnc(updates, rng(), n_malicious=1)
    assert result.update.tolist() == [1.0, 1.0]
    assert result.weights.tolist() == [0.25, 0.25, 0.25, 0.25, 0]
    assert result.suspicion.argmax().item() == 4


def test_suspicion_is_the_share_of_the_squared_projections():
    # Centred: -2, -1, 3.
    result = dnc(torch.tensor([[0.0], [1.0], [5.0]]), rng(), n_malicious=1)
    expected = torch.tensor([4 / 14, 1 / 14, 9 / 14]).double()
    torch.testing.assert_close(result.suspicion, expected)


def test_where_all_agree_nobody_is_suspected():
    assert dnc(torch.ones(3, 2), rng(), n_malicious=1).suspicion.tolist() == [0, 0, 0]


def test_whoever_fails_one_repeat_is_out():
    # Each repeat sees one coordinate and drops one client: in one the sixth, in the other the last.
    updates = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    updates[5], updates[6] = torch.tensor([50.0, 0.0]), torch.tensor([0.0, 50.0])
    result = dnc(updates, rng(), n_malicious=1, n_repeats=20, n_coordinates=1)
    assert result.weights[5:].tolist() == [0, 0]
    assert result.weights[:5].min() > 0


def test_the_filter_fraction_scales_how_many_are_dropped():
    updates = torch.tensor([[0.0], [1.0], [2.0], [3.0], [40.0], [-50.0], [1.5]])
    result = dnc(updates, rng(), n_malicious=1, filter_fraction=2.0)
    assert (result.weights > 0).tolist() == [True, True, True, True, False, False, True]


def test_a_product_that_floats_make_too_small_is_not_rounded_down():
    assert n_dropped(n_malicious=45, filter_fraction=1.4) == 63  # 62.999… in floats


@pytest.mark.parametrize("n", [9, 600])  # of many rows, one eigenvector is sought alone
def test_suspicion_agrees_with_the_singular_vectors_of_numpy(n):
    updates = torch.randn(n, 60, generator=torch.Generator().manual_seed(3)).double()
    centred = (updates - updates.mean(dim=0)).numpy()
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    expected = torch.from_numpy((centred @ directions[0]) ** 2 / values[0] ** 2)
    result = dnc(updates, rng(), n_malicious=2, n_repeats=1)
    torch.testing.assert_close(result.suspicion, expected)
    heard = result.weights.nonzero().squeeze(1)
    assert set(heard.tolist()) == set(expected.argsort()[: n - 2].tolist())


def test_many_clients_that_all_send_nothing_are_heard_alike():
    result = dnc(torch.zeros(600, 3), rng(), n_malicious=0)
    assert result.update.tolist() == [0, 0, 0]
    assert result.weights.unique().tolist() == [1 / 600]
