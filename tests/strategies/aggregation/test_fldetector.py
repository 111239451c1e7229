import numpy as np
import pytest
import torch

from clients.device_memory import CountedTensors
from strategies.aggregation import aggregate as sums
from strategies.aggregation import blocks, fldetector
from strategies.aggregation.fldetector import hessian_product, worse_cluster
from strategies.aggregation.traits import traits_of


def test_the_last_step_times_the_curvature_foretells_the_change():
    # On the step 2 the update changed by -1, so on the step 1 it changes by -0.5.
    assert hessian_product(torch.tensor([[2.0], [1.0]])).item() == -0.5


def test_curvature_is_known_along_the_steps_taken():
    results = torch.tensor([[1.0, 2.0], [0.5, 1.0]])  # halves on each step: the change is -0.5
    torch.testing.assert_close(hessian_product(results), torch.tensor([-0.25, -0.5]))


@pytest.mark.parametrize("size", [1.0, 1e-20])
def test_across_the_step_the_curvature_is_that_of_bfgs(size):
    # s = (1, 0), y = (-0.5, 0.25), v = (0.5, 0.25), and σ = y·s / s·s = -0.5:
    # σ v - σ s (s·v) / (s·s) + y (y·v) / (y·s) = (-0.25, -0.125) + (0.25, 0) + 0.375 y
    product = hessian_product(size * torch.tensor([[1.0, 0.0], [0.5, 0.25]]))
    torch.testing.assert_close(product, size * torch.tensor([-0.1875, -0.03125]), rtol=1e-5, atol=0)


def test_after_several_steps_the_curvature_is_that_of_bfgs_step_by_step():
    results = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).double()
    steps, changes = results[:-1], results.diff(dim=0)
    hessian = torch.eye(6).double() * (changes[-1] @ steps[-1]) / (steps[-1] @ steps[-1])
    for s, y in zip(steps, changes, strict=True):
        moved = hessian @ s
        hessian += torch.outer(y, y) / (y @ s) - torch.outer(moved, moved) / (s @ moved)
    torch.testing.assert_close(hessian_product(results), hessian @ results[-1])


def test_it_takes_memory_for_its_rows_and_not_for_float64_copies_of_them(monkeypatch):
    monkeypatch.setattr(blocks, "CPU_BLOCK", 20_000)
    monkeypatch.setattr(sums, "SUM_WIDTH", 1_000)
    results = torch.randn(11, 20_000, generator=torch.Generator().manual_seed(0))
    with CountedTensors() as count:
        hessian_product(results)
    assert count.peak < 40 * results[0].nbytes  # 10 changes, twice while they are put below 11


def test_what_giants_change_by_is_finite():
    giants = 3e38 * torch.tensor([[1.0], [-1.0], [1.0]])
    assert hessian_product(giants).isfinite().all()


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_equal_steps_foretell_no_change(size):
    product = hessian_product(torch.full((4, 3), size))
    torch.testing.assert_close(product, torch.zeros(3), rtol=0, atol=1e-6)


def test_two_separate_groups_of_scores_are_told_apart():
    scores = torch.tensor([0.1, 0.95, 0.11, 0.09, 0.9, 0.1, 0.12]).double()
    for like in (scores, 0.1 + 1e-9 * scores, (scores > 0.5) + 1e-8 * scores):
        found = worse_cluster(like, np.random.default_rng(0))
        assert found.tolist() == [False, True, False, False, True, False, False]


def test_evenly_spread_or_equal_scores_are_one_group():
    assert not worse_cluster(torch.linspace(0, 1, 12), np.random.default_rng(0)).any()
    assert not worse_cluster(torch.ones(5), np.random.default_rng(0)).any()


def gap_statistic_sees_two(scores: np.ndarray, rng: np.random.Generator) -> bool:
    """By its definition, for scores from 0 to 1."""
    n, samples = len(scores), np.sort(np.vstack([scores, rng.random((20, len(scores)))]), axis=1)
    one = n * samples.var(axis=1)
    splits = [(samples[:, :k], samples[:, k:]) for k in range(1, n)]
    two = np.min([sum(k.shape[1] * k.var(axis=1) for k in split) for split in splits], axis=0)
    gap_one, gap_two = (np.log(within[1:]).mean() - np.log(within[0]) for within in (one, two))
    return gap_one < gap_two - np.log(two[1:]).std() * (1 + 1 / 20) ** 0.5


def test_a_gap_nearly_as_wide_as_the_groups_tells_them_apart_and_half_of_it_does_not():
    for end in np.linspace(0.35, 0.4, 51):
        scores = torch.cat([torch.linspace(0, end, 6), torch.linspace(1 - end, 1, 6)]).double()
        expected = gap_statistic_sees_two(scores.numpy(), np.random.default_rng(0))
        assert worse_cluster(scores, np.random.default_rng(0)).sum() == 6 * expected
        assert end not in (0.35, 0.4) or expected == (end == 0.35)


def test_two_scores_are_no_groups_and_three_may_be():
    assert not worse_cluster(torch.tensor([0.4, 0.6]), np.random.default_rng(0)).any()
    assert worse_cluster(torch.tensor([0.4, 0.6, 0.4]), np.random.default_rng(0))[1]


def train(n_rounds: int, window: int = 3, clients: torch.Tensor | None = None):
    """Let eight honest clients approach their optima, and two send what they like."""
    clients = torch.arange(10) if clients is None else clients
    rng = torch.Generator().manual_seed(0)
    optima = torch.randn(8, 5, generator=rng)
    model, memory, results = torch.zeros(5), {}, []
    for round_ in range(n_rounds):
        updates = torch.cat([0.2 * (optima - model), torch.randn(2, 5, generator=rng)])
        draws = np.random.default_rng(round_)
        results.append(fldetector(updates, clients, memory, draws, window=window))
        model, memory = model + results[-1].update, results[-1].memory
        updates.zero_()  # the next round's come in their place
    return results


def test_unpredictable_clients_are_detected_once_the_window_is_full():
    results = train(n_rounds=10)
    for early in results[:4]:
        torch.testing.assert_close(early.weights, torch.full((10,), 0.1).double())
    assert traits_of(fldetector).selects
    assert results[-1].weights[8:].tolist() == [0, 0]
    torch.testing.assert_close(results[-1].weights[:8], torch.full((8,), 0.125).double())
    assert torch.equal(results[-1].memory["results"][-1], results[-1].update)


def test_the_order_of_ids_is_irrelevant():
    # As torch holds ids of 64 bits without a sign: in the order of the ids, the largest come last.
    ids = torch.tensor([3, 4, 9, 2**40, 2**50, 2**62, -(2**62), -(2**50), -3, -2])
    for result, same in zip(train(n_rounds=10, clients=ids), train(n_rounds=10), strict=True):
        torch.testing.assert_close(result.suspicion, same.suspicion)
        torch.testing.assert_close(result.weights, same.weights)


def test_nobody_is_detected_after_the_first_who_stay_so_though_they_sit_out_a_round():
    memory, draws = train(n_rounds=10)[-1].memory, np.random.default_rng(0)
    memory = fldetector(torch.ones(8, 5), torch.arange(8), memory, draws, window=3).memory
    memory["scores.values"] = torch.tensor([0.46] * 2 + [0.01] * 8).double().repeat(3, 1).T
    result = fldetector(torch.ones(10, 5), torch.arange(10), memory, draws, window=3)
    torch.testing.assert_close(result.weights, torch.tensor([0.125] * 8 + [0, 0]).double())


def test_whoever_follows_the_curvature_is_foretold_exactly():
    optima = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    model, memory, clients = torch.zeros(5), {}, torch.arange(6)
    for round_ in range(3):
        updates = 0.2 * (optima - model)
        updates[4] += round_ == 2  # the fifth client alone does not
        result = fldetector(updates, clients, memory, np.random.default_rng(0))
        model, memory = model + result.update, result.memory
    assert result.suspicion[4] > 0.9999


def test_scores_are_shares_of_the_distances_averaged_over_the_window():
    results = train(n_rounds=3)
    assert results[0].suspicion.tolist() == [0] * 10
    assert results[2].suspicion.sum().item() == pytest.approx(1)
    assert results[2].suspicion[8:].min() > results[2].suspicion[:8].max()


def test_a_score_is_the_share_of_all_distances(monkeypatch):
    monkeypatch.setattr(blocks, "CPU_BLOCK", 1)  # a column
    memory, clients = {}, torch.arange(3)
    for round_ in range(3):  # equal steps foretell no change
        updates = torch.ones(3, 2)
        if round_ == 2:
            updates += torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
        result = fldetector(updates, clients, memory, np.random.default_rng(0))
        memory = result.memory
    torch.testing.assert_close(result.suspicion, torch.tensor([0, 0.25, 0.75]).double())


def test_a_giant_is_scored_though_more_is_foretold_of_it_than_float32_holds():
    memory = {}
    for giant in (1.7e38, 3.4e38, 3.4e38):  # from one step to the next the mean grew by as much
        updates = torch.tensor([[1.0], [2.0], [giant]])
        result = fldetector(updates, torch.arange(3), memory, np.random.default_rng(0))
        memory = result.memory
    torch.testing.assert_close(result.suspicion, torch.full((3,), 1 / 3).double())


def test_those_left_count_by_their_prior():
    memory, prior = train(n_rounds=10)[-1].memory, torch.arange(1, 11).double() / 55
    updates, draws = torch.ones(10, 5), np.random.default_rng(0)
    weights = fldetector(updates, torch.arange(10), memory, draws, window=3, prior=prior).weights
    torch.testing.assert_close(weights[:8], prior[:8] / prior[:8].sum())


def test_whoever_sat_out_a_round_of_the_window_can_be_detected():
    memory, draws = train(n_rounds=4)[-1].memory, np.random.default_rng(0)
    memory["scores.values"] = torch.tensor([0.01] * 8 + [0.46] * 2).double().repeat(3, 1).T
    memory["scores.values"][9, 1] = torch.nan
    result = fldetector(memory["last.values"] + 1, torch.arange(10), memory, draws, window=3)
    assert result.weights[8:].tolist() == [0, 0]


def test_a_new_client_is_not_scored():
    memory = train(n_rounds=4)[-1].memory
    updates, clients, draws = (
        torch.randn(4, 5),
        torch.tensor([0, 1, 2, 99]),
        np.random.default_rng(0),
    )
    result = fldetector(updates, clients, memory, draws, window=3)
    assert result.suspicion[3].item() == 0
    assert result.weights[3].item() > 0
    assert result.memory["scores.values"][:3, -1].sum().item() == pytest.approx(1)
    assert fldetector(updates, clients + 99, memory, draws, window=3).weights.tolist() == [0.25] * 4
    # Who was not there in the last round keeps what scores the window still has.
    absent = fldetector(updates, torch.arange(3, 7), result.memory, draws, window=3)
    torch.testing.assert_close(absent.suspicion, memory["scores.values"][3:7, 1:].nanmean(dim=1))


def test_no_more_averages_are_kept_than_the_window_needs():
    memory = {}
    for _ in range(5):
        memory = fldetector(
            torch.zeros(2, 1), torch.arange(2), memory, np.random.default_rng(0), window=2
        ).memory
    assert len(memory["results"]) == 3
    assert memory["scores.values"].tolist() == [[0, 0], [0, 0]]  # all came as foretold
