import statistics
from functools import partial

import pytest
import torch

from strategies.aggregation import alignins

# The principal signs are all +. Of each update's two largest values either both have them or none.
UPDATES = torch.tensor(
    [[3.0, 4, 0, 0], [6, 8, 0, 0], [0, 0, 6, 8], [0, 0, 3, 4], [-9, -12, 0, 0]]  # norms 5 to 15
)
by_signs = partial(alignins, received=torch.zeros(4), top_fraction=0.5)  # all cosines are 0

# Cosines with (1, 0): 0.6, 0.6, 0.6, 0.8 and 1, with median 0.6 and standard deviation 0.16.
ANGLES = torch.tensor([[3.0, 4], [3, 4], [3, 4], [4, 3], [5, 0]])
by_direction = partial(alignins, received=torch.tensor([2.0, 0.0]))


def test_who_is_against_the_principal_signs_is_rejected_and_the_rest_is_clipped():
    result = by_signs(UPDATES)
    # Shares 1, 1, 1, 1 and 0. The lower median norm of those kept is 5; of all it is 10.
    torch.testing.assert_close(result.update, torch.tensor([1.5, 2, 1.5, 2]))
    torch.testing.assert_close(result.weights, torch.tensor([2, 1, 1, 2, 0]).double() / 6)
    torch.testing.assert_close(result.suspicion, torch.tensor([0, 0, 0, 0, 2.5]).double())


def test_who_goes_along_the_model_more_than_most_is_rejected_too():
    result = by_direction(ANGLES)
    torch.testing.assert_close(result.suspicion, torch.tensor([0, 0, 0, 1.25, 2.5]).double())
    assert (result.weights > 0).tolist() == [True, True, True, False, False]


def test_whoever_is_at_a_radius_is_kept():
    assert (by_direction(ANGLES, direction_radius=1.25).weights > 0).sum() == 4
    assert (by_direction(ANGLES, direction_radius=1.25, sign_radius=0.1).weights > 0).sum() == 4
    assert (by_signs(UPDATES, sign_radius=2.5).weights > 0).sum() == 5
    assert (by_signs(UPDATES, sign_radius=2.4, direction_radius=9.0).weights > 0).sum() == 4


@pytest.mark.parametrize("top_fraction", [0.0, 0.25, 1.0])
def test_says_what_the_definitions_say(top_fraction):
    n, d = 12, 20
    draws = torch.Generator().manual_seed(3)
    updates = torch.randn(n, d, generator=draws).double() + 0.3
    received, prior = torch.randn(2, 20, generator=draws).double()
    prior = prior[:n].softmax(dim=0)

    rows, k = updates.tolist(), max(1, round(top_fraction * d))
    signs = [[(x > 0) - (x < 0) for x in row] for row in rows]
    votes = [sum(column) for column in zip(*signs, strict=True)]
    principal = [(vote > 0) - (vote < 0) for vote in votes]
    top = [sorted(range(d), key=lambda j, row=row: -abs(row[j]))[:k] for row in rows]
    measures = (
        torch.nn.functional.cosine_similarity(updates, received[None]).tolist(),
        [sum(signs[i][j] == principal[j] for j in top[i]) / k for i in range(n)],
    )
    scores = [
        [abs(x - statistics.median(of)) / statistics.pstdev(of) / radius for x in of]
        for of, radius in zip(measures, (1.5, 0.8), strict=True)
    ]
    suspicion = [max(pair) for pair in zip(*scores, strict=True)]
    kept = [i for i in range(n) if suspicion[i] <= 1]
    norms = torch.linalg.vector_norm(updates, dim=1)
    clip = statistics.median_low(norms[kept].tolist())
    parts = [prior[i] * min(1, clip / norms[i]) * updates[i] for i in kept]

    result = alignins(updates, received, 1.5, 0.8, top_fraction, prior)
    torch.testing.assert_close(result.suspicion, torch.tensor(suspicion).double())
    torch.testing.assert_close(result.update, sum(parts, torch.zeros(d)) / prior[kept].sum())
    assert 2 < len(kept) < n - 2


def test_of_equal_values_at_the_end_of_the_largest_each_counts_in_part():
    updates = torch.ones(5, 4)
    updates[3] = torch.tensor([2.0, 1, -1, -1])  # the largest, and one of three: one agrees
    updates[4] *= -1
    shares = torch.tensor([1, 1, 1, (1 + 1 / 3) / 2, 0]).double()
    expected = (1 - shares) / shares.std(correction=0)
    torch.testing.assert_close(by_signs(updates).suspicion, expected)


def test_a_coordinate_whose_signs_cancel_has_none_and_a_value_of_zero_neither():
    updates = torch.tensor([[1.0, 0], [-1, 0], [0, 0], [2, 0]])
    updates = torch.cat([updates, torch.tensor([[-2.0, 0]])])  # two up, two down
    result = alignins(updates, torch.zeros(2))
    torch.testing.assert_close(result.suspicion, torch.tensor([0, 0, 2.5, 0, 0]).double())


def test_of_two_clients_or_camps_nobody_can_tell_which_is_unusual():
    for seed in range(20):
        draws = torch.Generator().manual_seed(seed)
        two, received = torch.randn(2, 30, generator=draws), torch.randn(30, generator=draws)
        assert (alignins(two, received).weights > 0).all()
        assert (alignins(two.repeat(5, 1), received).weights > 0).all()


def test_updates_along_one_line_differ_by_rounding_alone():
    line = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    updates = torch.outer(torch.tensor([0.1, 0.3, 0.7, 1, 1.9, 30]), line)
    assert alignins(updates, torch.ones(1000)).suspicion.tolist() == [0] * 6


def test_a_client_alone_is_heard_and_nobody_is_where_all_are_unusual():
    assert by_direction(ANGLES[:1]).update.tolist() == [3, 4]
    nobody = by_direction(ANGLES[[0, 3]], direction_radius=0.5)
    assert nobody.weights.tolist() == [0, 0]
    assert nobody.update.tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_direction_is_found_in_updates_of_usual_length(seed):
    draws = torch.Generator().manual_seed(seed)
    task, backdoor = torch.randn(2, 1, 2000, generator=draws)
    updates = task + torch.randn(20, 2000, generator=draws)
    updates[:2] += 1.5 * backdoor
    updates *= 1 / updates.norm(dim=1, keepdim=True)
    result = alignins(updates, torch.randn(2000, generator=draws))
    assert set(result.suspicion.topk(2).indices.tolist()) == {0, 1}
    assert result.weights[:2].tolist() == [0, 0]
    assert (result.weights > 0).sum() >= 6
