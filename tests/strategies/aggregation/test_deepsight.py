from functools import partial

import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN

from strategies.aggregation import deepsight
from strategies.aggregation.traits import traits_of

LAYERS = {
    "0.weight": slice(0, 2),
    "1.weight": slice(2, 10),
    "1.bias": slice(10, 14),
}  # two inputs, four classes
INPUTS = torch.rand(15, 2, generator=torch.Generator().manual_seed(0)).double()


def outputs(update: torch.Tensor, n_inputs: int) -> torch.Tensor:
    """Answer as an output layer whose biases begin at 0, 1, 2 and 3."""
    assert n_inputs == len(INPUTS)
    weights, bias = update[2:10].view(4, 2), update[10:14] + torch.arange(4)
    return INPUTS.to(update) @ weights.T + bias


rule = partial(deepsight, respond=outputs, layers=LAYERS, n_samples=5)


def update_of(*energies: float) -> torch.Tensor:
    """Return an update of which each class's energy is given, a third in each of its numbers."""
    thirds = torch.tensor(energies).double() / 3
    return torch.cat([torch.zeros(2).double(), thirds.repeat_interleave(2), thirds])


def hard_at_work(n: int, seed: int = 0) -> torch.Tensor:
    """Return honest updates that move all classes."""
    noise = torch.rand(n, 4, generator=torch.Generator().manual_seed(seed))
    return torch.stack([update_of(*row) for row in (1 + noise).tolist()])


def test_who_learns_few_classes_is_rejected_and_the_rest_clipped_to_the_median_of_all():
    updates = torch.cat([hard_at_work(4), update_of(9, 0, 0, 0)[None], update_of(0, 0, 8, 0)[None]])
    result = rule(updates)
    norms = updates.norm(dim=1)
    middle = norms.sort().values[2:4].mean()
    factors = (middle / norms[:4]).clamp(max=1)
    assert traits_of(deepsight).selects
    assert result.suspicion.tolist() == [0, 0, 0, 0, 1, 1]
    torch.testing.assert_close(result.weights[:4], factors / factors.sum())
    torch.testing.assert_close(result.update, factors @ updates[:4] / 4)


def exceeds(energies: tuple[float, ...], others: tuple[float, ...]) -> bool:
    """Whether an update is not suspicious among two others alike: too few for any cluster of 5."""
    updates = torch.stack([update_of(*row) for row in (energies, others, others)])
    return rule(updates).suspicion[0].item() == 0


def test_a_class_counts_whose_squared_energy_is_more_than_a_quarter_of_the_largest():
    # With four classes the factor is 1/4: an energy above half the largest. The others have 4, so
    # that 2 are suspicious and 3 are not.
    everything = (1.0, 1.0, 1.0, 1.0)
    assert not exceeds((1.0, 1.0, 0.5, 0.5), everything)
    assert exceeds((1.0, 1.0, 0.51, 0.49), everything)


def test_half_the_median_is_suspicious_and_more_is_not():
    assert not exceeds((1.0, 0.0, 0.0, 0.0), (1.0, 1.0, 0.0, 0.0))  # 1 of 2
    assert exceeds((1.0, -1.0, 0.0, 0.0), (1.0, 1.0, 1.0, 0.0))  # 2 of 3, whatever the sign


def test_of_an_even_number_the_median_is_midway():
    updates = torch.stack([update_of(*row) for row in ([1.0] * 4, [1.0] * 4, [1, 0, 0, 0])])
    assert rule(updates[[0, 1, 2, 2]]).suspicion.tolist() == [0, 0, 1, 1]  # 4, 4, 1, 1


def test_who_moves_no_output_and_who_answers_no_numbers_is_judged_too():
    giant = 6e38 * update_of(1.0, -1.0, 0.0, 0.0)  # the sizes' sum is no float32
    loud = update_of(0.0, 0.0, 0.0, 1800.0)
    updates = torch.cat([hard_at_work(5), torch.stack([0 * giant, giant, loud])]).float()

    def respond(update: torch.Tensor, n_inputs: int) -> torch.Tensor:
        return outputs(update, n_inputs).float() - torch.tensor([0.0, 0, 0, 500])  # e⁵⁰⁰ louder

    result = rule(updates, respond=respond)
    assert result.suspicion.tolist() == [0] * 5 + [1, 1, 1]
    assert rule(updates[[6] * 6], respond=respond).suspicion.tolist() == [0] * 6  # all alike
    assert rule(updates[[5] * 3]).weights.tolist() == [0, 0, 0]


def test_with_many_classes_a_hundredth_of_the_largest_counts():
    layers = {"weight": slice(0, 200), "bias": slice(200, 400)}

    def biases(update: torch.Tensor, n_inputs: int) -> torch.Tensor:
        return update[None, 200:].expand(n_inputs, -1)

    def suspicion(energy: float) -> float:
        row = torch.full((1, 400), energy)
        row[0, 0] = row[0, 200] = 1.0
        updates = torch.cat([row, torch.ones(2, 400)])
        return deepsight(updates, biases, layers, n_samples=1).suspicion[0].item()

    assert suspicion(0.101) == 0  # squared, above 1/100
    assert suspicion(0.099) == 1


def test_a_cluster_is_judged_as_one():
    # Two groups of six that agree in all, and in each so many who learn but one class.
    def shares(few: int) -> list[float]:
        steps = 1e-3 * torch.rand(12, 4, generator=torch.Generator().manual_seed(0)).double()
        one = torch.stack([update_of(4.0, 4.0, 1.9, 1.9)] * few)  # 2 of 4
        more = torch.stack([update_of(4.0, 4.0, 2.1, 2.1)] * (6 - few))  # 4 of 4
        other = torch.stack([update_of(-1.0, 1.0, -1.0, 1.0)] * 6)
        updates = torch.cat([one, more, other])
        updates[:, 10:] += steps
        result = rule(updates)
        assert ((result.weights > 0) == (result.suspicion < 1 / 3)).all()
        return result.suspicion.tolist()

    assert shares(1) == pytest.approx([1 / 6] * 6 + [0] * 6)
    assert shares(2) == pytest.approx([1 / 3] * 6 + [0] * 6)


def slow_deepsight(updates: np.ndarray, respond) -> tuple[np.ndarray, np.ndarray]:
    """Return suspicion and the update, by loops."""
    n, asked = len(updates), torch.from_numpy(updates)
    probabilities = [
        respond(row, 15).softmax(dim=1).numpy().reshape(3, 5, 4)
        for row in [torch.zeros(14).double(), *asked]
    ]
    neups, counts = np.zeros((n, 4)), np.zeros(n)
    for i, row in enumerate(updates):
        weights, bias = row[2:10].reshape(4, 2), row[10:14]
        energies = np.array([np.abs(weights[c]).sum() + abs(bias[c]) for c in range(4)])
        neups[i] = energies**2 / (energies**2).sum()
        counts[i] = sum(neup > neups[i].max() / 4 for neup in neups[i])
    suspicious = counts <= np.median(counts) / 2
    biases = updates[:, 10:14]
    lengths = np.linalg.norm(biases, axis=1)
    cosines = 1 - biases @ biases.T / np.outer(lengths, lengths)
    np.fill_diagonal(cosines, 0)

    def apart(values, metric: str = "euclidean") -> np.ndarray:
        labels = HDBSCAN(metric=metric, copy=True).fit(values).labels_  # pyright: ignore[reportArgumentType]
        return np.array(
            [[float(i != j and (a != b or a == -1)) for j, b in enumerate(labels)]
             for i, a in enumerate(labels)]
        )  # fmt: skip

    views = [apart(cosines.clip(0), "precomputed"), apart(neups)]
    ddifs = [
        apart(np.array([(p[s] / probabilities[0][s]).mean(axis=0) for p in probabilities[1:]]))
        for s in range(3)
    ]
    together = 1 - apart((sum(views) + sum(ddifs) / 3) / 3, "precomputed")
    share = np.array([suspicious[row > 0].mean() for row in together])
    norms = np.linalg.norm(updates, axis=1)
    clipped = updates * np.minimum(1, np.median(norms) / norms)[:, None]
    return share, clipped[share < 1 / 3].mean(axis=0)


def crowd(seed: int) -> torch.Tensor:
    """Return 30 updates: two kinds of weights, three kinds of biases, by who moved least."""
    generator = torch.Generator().manual_seed(seed)

    def of_kinds(n_kinds: int, width: int) -> torch.Tensor:
        kinds = torch.randn(n_kinds, width, generator=generator).double() ** 3
        rows = kinds[torch.randint(n_kinds, (30,), generator=generator)]
        rows = rows * torch.exp(0.1 * torch.randn(30, 1, generator=generator))
        return rows + 0.1 * torch.randn(30, width, generator=generator)

    updates = torch.cat([torch.zeros(30, 2), of_kinds(2, 8), of_kinds(3, 4)], dim=1)
    return updates[updates[:, 2:].abs().sum(dim=1).argsort()]


@pytest.mark.parametrize("seed", [1, 5, 6, 19])  # in which every view matters
def test_agrees_with_the_paper_s_steps_one_by_one(seed):
    updates = crowd(seed)
    result = rule(updates)
    share, update = slow_deepsight(updates.numpy(), outputs)
    torch.testing.assert_close(result.suspicion, torch.from_numpy(share))
    torch.testing.assert_close(result.update, torch.from_numpy(update))


@pytest.mark.parametrize("size", [2, 6])
def test_an_array_without_an_entry_per_class_is_no_bias(size):
    updates = torch.cat([crowd(1), torch.ones(30, size)], dim=1)
    hidden, output = slice(14, 14 + size), slice(2, 10)
    unnamed = rule(updates, layers={"0": hidden, "1": output})  # whose last two are taken
    assert torch.equal(unnamed.suspicion, rule(updates, layers={"weight": output}).suspicion)


@pytest.mark.parametrize("seed", [1, 7])
def test_ties_of_distances_and_copies_do_not_hang_on_the_order(seed):
    updates = crowd(seed)
    updates[[3, 9, 20]] = updates[9].clone()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    plain, permuted = rule(updates), rule(updates[order])
    torch.testing.assert_close(permuted.suspicion, plain.suspicion[order])
    torch.testing.assert_close(permuted.weights, plain.weights[order])
    assert len(set(plain.weights[[3, 9, 20]].tolist())) == 1
