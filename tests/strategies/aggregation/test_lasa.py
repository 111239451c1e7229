import statistics
from functools import partial

import pytest
import torch

from strategies.aggregation import lasa

LAYERS = {"weight": slice(0, 2), "bias": slice(2, 4)}
whole = partial(lasa, layers=LAYERS, top_fraction=1.0)

# All of norm 5. In the weights, norms are 4, 4, 4, 4 and 3; in the bias 3, 3, 3, 3 and 4. Signs are
# all + in the weights; in the bias the third client's are all -.
UPDATES = torch.tensor([[4.0, 0, 3, 0], [0, 4, 0, 3], [4, 0, 0, -3], [4, 0, 3, 0], [3, 0, 0, 4]])


def test_a_client_is_heard_in_the_layers_in_which_it_is_usual():
    # A fifth of the clients apart is 2.5 deviations away: the last by its norms, the third by sign.
    result = whole(UPDATES, norm_radius=2.4, sign_radius=2.4)
    torch.testing.assert_close(result.update, torch.tensor([3.0, 1, 2, 1]))
    weights = torch.tensor([7 / 24, 7 / 24, 1 / 8, 7 / 24, 0]).double()
    torch.testing.assert_close(result.weights, weights)
    suspicion = torch.tensor([0, 0, 2.5 / 2.4 / 2, 0, 2.5 / 2.4]).double()
    torch.testing.assert_close(result.suspicion, suspicion)


def test_each_measure_has_its_radius_and_whoever_is_at_it_is_heard():
    by_sign = whole(UPDATES, norm_radius=2.5, sign_radius=2.4)
    torch.testing.assert_close(by_sign.update, torch.tensor([3.0, 0.8, 1.5, 1.75]))
    by_norm = whole(UPDATES, norm_radius=2.4, sign_radius=2.5)
    torch.testing.assert_close(by_norm.update, torch.tensor([3.0, 1, 1.5, 0]))


def test_layers_count_by_their_size():
    longer = torch.cat([UPDATES, torch.zeros(5, 4)], dim=1)
    layers = {"weight": slice(0, 2), "bias": slice(2, 8)}
    result = lasa(longer, layers, 2.4, 2.4, top_fraction=1.0)
    torch.testing.assert_close(result.weights[2], torch.tensor(1 / 4 * 1 / 4).double())
    torch.testing.assert_close(result.suspicion[2], torch.tensor(2.5 / 2.4 * 3 / 4).double())


def test_only_the_largest_values_of_the_whole_update_are_heard_and_judged():
    updates = torch.tensor([[4.0, -0.5, 3, 0.1]] * 4 + [[4.0, 0.5, 3, -0.1]])
    result = lasa(updates, LAYERS, top_fraction=0.5)  # 4 and 3: as if all were alike
    assert result.update.tolist() == [4, 0, 3, 0]
    assert result.suspicion.tolist() == [0] * 5
    third = lasa(updates, LAYERS, norm_radius=9.0, sign_radius=2.4, top_fraction=0.75)
    torch.testing.assert_close(third.update, torch.tensor([4.0, -0.5, 3, 0]))


def test_values_that_tie_for_the_last_place_are_all_kept():
    updates = torch.tensor([[2.0, 1, -1, 1]] * 3)
    assert lasa(updates, LAYERS, top_fraction=0.5).update.tolist() == [2, 1, -1, 1]


def test_the_longer_half_is_clipped_to_the_lower_median_norm():
    updates = torch.tensor([[1.0], [2.0], [3.0], [1e30]])
    result = lasa(updates, {"weight": slice(0, 1)}, norm_radius=9.0)
    torch.testing.assert_close(result.update, torch.tensor([7 / 4]))
    expected = torch.tensor([1, 1, 2 / 3, 2e-30]).double()
    torch.testing.assert_close(result.weights, expected / expected.sum())


def test_where_nobody_is_usual_everybody_is_heard_in_that_layer_alone():
    # Norms 3, 3, 5 and 5 are one deviation away each; in the second layer one sign is unusual.
    updates = torch.tensor([[3.0, 1, 5], [3, 1, 5], [5, 1, 3], [5, -1, 3]])
    layers = {"a": slice(0, 1), "b": slice(1, 2), "c": slice(2, 3)}
    result = lasa(updates, layers, norm_radius=0.5, top_fraction=1.0)
    torch.testing.assert_close(result.update, torch.tensor([4.0, 1, 4]))
    assert result.weights[3] < result.weights[0]
    torch.testing.assert_close(result.suspicion[0], torch.tensor(4 / 3).double())


def test_a_layer_of_zeros_is_neither_up_nor_down():
    updates = torch.tensor(
        [[1.0, 0, 1, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 0, -1, 0], [1, 0, 1, 0]]
    )
    updates[:, 0] *= torch.tensor([1, 2, 1, 1, 1]).sqrt()  # all of norm √2
    purities = torch.tensor([1, 0.5, 1, 0, 1]).double()
    expected = (1 - purities) / purities.std(correction=0) / 2  # the signs of the weights agree
    torch.testing.assert_close(
        whole(updates, norm_radius=99.0).suspicion, expected, rtol=0, atol=0.02
    )


def test_a_client_alone_is_heard_and_of_two_nobody_can_tell_which_is_unusual():
    assert whole(UPDATES[:1]).update.tolist() == UPDATES[0].tolist()
    for seed in range(20):
        two = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        assert (whole(two).weights > 0).all()


def test_a_layer_whose_usual_clients_have_no_prior_does_not_move():
    prior = torch.tensor([0, 0, 1, 0, 0]).double()
    result = whole(UPDATES, norm_radius=2.4, sign_radius=2.4, prior=prior)
    assert result.update.tolist() == [4, 0, 0, 0]
    assert result.weights.tolist() == [0, 0, 0.5, 0, 0]


@pytest.mark.parametrize(("n", "top_fraction"), [(12, 0.7), (13, 0.3), (12, 1.0)])
def test_says_what_the_definitions_say(n, top_fraction):
    d, draws = 40, torch.Generator().manual_seed(n)
    updates = (torch.randn(n, d, generator=draws).double() + 0.3) * torch.rand(
        n, 1, generator=draws
    )
    prior = torch.rand(n, generator=draws).double().softmax(dim=0)
    layers = {"a": slice(0, 25), "b": slice(25, 28), "c": slice(28, d)}
    norms = [sum(x * x for x in row) ** 0.5 for row in updates.tolist()]
    clip, rows, factors = statistics.median_low(norms), [], []
    for norm, row in zip(norms, updates.tolist(), strict=True):
        least = sorted(map(abs, row))[d - round(top_fraction * d)]
        factors.append(min(1, clip / norm))
        rows.append([x * factors[-1] if abs(x) >= least else 0.0 for x in row])

    def scores(values: list[float], radius: float) -> list[float]:
        median, spread = statistics.median(values), statistics.pstdev(values)
        return [abs(x - median) / spread / radius for x in values]

    update, weights, suspicion = torch.zeros(d), torch.zeros(n), torch.zeros(n)
    n_dropped = []
    for layer in layers.values():
        parts = [row[layer] for row in rows]
        lengths = [sum(x * x for x in part) ** 0.5 for part in parts]
        signs = [[(x > 0) - (x < 0) for x in part if x] for part in parts]
        purities = [(1 + sum(own) / max(len(own), 1)) / 2 for own in signs]
        unusual = [
            max(pair) for pair in zip(scores(lengths, 1.3), scores(purities, 1.1), strict=True)
        ]
        heard = [i for i in range(n) if unusual[i] <= 1]
        n_dropped.append(n - len(heard))
        total = sum(float(prior[i]) for i in heard)
        clipped = sum(float(prior[i]) * factors[i] for i in heard)
        for i in heard:
            update[layer] += float(prior[i]) / total * torch.tensor(parts[i])
            weights[i] += len(parts[i]) / d * float(prior[i]) * factors[i] / clipped
        suspicion += len(parts[0]) / d * torch.tensor(unusual)
    assert min(n_dropped) > 1
    result = lasa(updates, layers, 1.3, 1.1, top_fraction, prior)
    for ours, theirs in zip(result[:3], (update, weights, suspicion), strict=True):
        torch.testing.assert_close(ours, theirs.double(), rtol=1e-5, atol=1e-6)
    assert result.pulls is not None
    torch.testing.assert_close(result.pulls.sum(), result.update.square().sum())
    backwards = torch.arange(n).flip(0)
    again = lasa(updates[backwards], layers, 1.3, 1.1, top_fraction, prior[backwards])
    torch.testing.assert_close(again.update, result.update)
    torch.testing.assert_close(again.weights, result.weights[backwards])
