import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from strategies.pre_aggregation import nearest_neighbour_mixing

LINE = torch.tensor([[0.0], [1.0], [4.0], [10.0]])


def test_each_row_becomes_the_mean_of_its_nearest_itself_included():
    # With f = 1 of four, three each: {0, 1, 4}, {0, 1, 4}, {0, 1, 4} and {1, 4, 10}.
    rows, mixing = nearest_neighbour_mixing(LINE, n_malicious=1)
    torch.testing.assert_close(rows, torch.tensor([[5 / 3], [5 / 3], [5 / 3], [5.0]]))
    assert (3 * mixing).round().tolist() == [[1, 1, 1, 0]] * 3 + [[0, 1, 1, 1]]


def test_without_attackers_every_row_is_the_mean():
    rows, _ = nearest_neighbour_mixing(LINE, n_malicious=0)
    torch.testing.assert_close(rows, torch.full((4, 1), 3.75))


def test_a_row_is_its_own_neighbour_and_of_equally_distant_ones_the_lowest_first():
    rows, mixing = nearest_neighbour_mixing(torch.tensor([[1.0], [-1.0], [0.0]]), n_malicious=1)
    assert mixing.tolist() == [[0.5, 0.0, 0.5], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]]
    assert rows.tolist() == [[0.5], [-0.5], [0.5]]


def test_copies_share_the_places_that_some_of_them_have():
    # Three of four are mixed: 0 with two of the three at 1, and each of these with the others.
    updates = torch.tensor([[0.0], [1.0], [1.0], [1.0]])
    rows, mixing = nearest_neighbour_mixing(updates, n_malicious=1)
    torch.testing.assert_close(rows, torch.tensor([[2 / 3], [1.0], [1.0], [1.0]]))
    expected = torch.tensor([[3, 2, 2, 2], [0, 3, 3, 3], [0, 3, 3, 3], [0, 3, 3, 3]]).double() / 9
    torch.testing.assert_close(mixing, expected)


def test_honest_rows_do_not_mix_with_giants():
    updates = torch.cat([LINE / 10, torch.tensor([[3e38]])])
    rows, _ = nearest_neighbour_mixing(updates, n_malicious=1)
    assert rows[:4].abs().max() <= 1


def test_neighbours_agree_with_scikit_learn():
    updates = 1 + 1e-3 * torch.randn(15, 200, generator=torch.Generator().manual_seed(0))
    exact = updates.double().numpy()
    # Asked about its own points, scikit-learn leaves each out of its neighbours.
    _, neighbours = NearestNeighbors(n_neighbors=10).fit(exact).kneighbors()
    expected = np.array(
        [exact[[row, *others]].mean(axis=0) for row, others in enumerate(neighbours)]
    )
    rows, _ = nearest_neighbour_mixing(updates, n_malicious=4)
    torch.testing.assert_close(rows.double(), torch.from_numpy(expected), rtol=1e-6, atol=0)
