"""Every attack on updates, on cases small enough to check by hand."""

import math
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.attacks import (
    Forged,
    Halving,
    Schedule,
    alie,
    alie_z,
    fang_krum,
    fang_krum_partial,
    fang_trimmed_mean,
    fang_trimmed_mean_partial,
    gaussian,
    inner_product,
    mimic,
    min_max,
    min_sum,
    minority_mimic,
    model_replacement,
    poisonedfl,
    sign_flip,
    tailored,
)
from clients.attacks.tailored import most_effective
from strategies.aggregation import krum, mean, multi_krum, trimmed_mean

OWN = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
# Mean (2, -1); the first coordinate varies by 1, the second by 2 (divided by n = 4).
SEEN = torch.tensor([[1.0, 1.0], [1.0, -3.0], [3.0, 1.0], [3.0, -3.0]])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def updates(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + 0.5


class TestBlind:
    def test_sign_flip_sends_the_opposite(self):
        assert sign_flip(OWN, scale=2.0).updates.tolist() == [[-2.0, -4.0], [-6.0, 8.0]]

    def test_model_replacement_makes_the_mean_the_attackers(self):
        # Two attackers among five clients, the others at a standstill: each is boosted by 5 / 2.
        sent = model_replacement(OWN, n_clients=5, n_attackers=2).updates
        everybody = torch.cat([torch.zeros(3, 2), sent])
        assert everybody.mean(dim=0).tolist() == OWN.mean(dim=0).tolist() == [2.0, -1.0]
        assert model_replacement(OWN, 5, 2, factor=3.0).updates[0].tolist() == [3.0, 6.0]

    def test_gaussian_noise_takes_the_updates_place_or_comes_on_top(self):
        own = torch.full((2, 20_000), 7.0)
        replaced = gaussian(own, rng(), std=0.1, mean=0.2).updates
        added = gaussian(own, rng(), std=0.1, mean=0.2, convention="add").updates
        for row in range(2):
            assert float(replaced[row].mean()) == pytest.approx(0.2, abs=0.005)
            assert float(replaced[row].std()) == pytest.approx(0.1, abs=0.005)
        torch.testing.assert_close(added, replaced + 7)
        assert not torch.equal(replaced[0], replaced[1])

    def test_relative_noise_is_as_wide_as_the_attackers_own_update(self):
        own = torch.tensor([[1.0, 3], [10, 30]])  # standard deviations 1 and 10
        noise = gaussian(own, rng(), std=0.5, relative=True).updates
        torch.testing.assert_close(noise, torch.tensor([[0.5], [5]]) * gaussian(own, rng()).updates)


class TestALittleIsEnough:
    def test_it_sends_the_mean_and_z_deviations(self):
        # The paper's code takes them off gradients, and an update is minus a gradient.
        sent = alie(OWN, SEEN, n_clients=6, n_attackers=2, z=1.5).updates
        assert sent.tolist() == [[2 + 1.5 * 1, -1 + 1.5 * 2]] * 2
        rooted = alie(OWN, SEEN, 6, 2, z=-1.5, spread="root_std").updates
        torch.testing.assert_close(rooted[0], torch.tensor([0.5, -1 - 1.5 * math.sqrt(2)]))

    def test_z_is_that_of_the_papers_example(self):
        # n = 50, f = 24: s = 26 - 24 = 2 supporters among 26 honest, 24 / 26 lie on this side.
        assert alie_z(50, 24) == pytest.approx(NormalDist().inv_cdf(24 / 26))
        assert alie_z(50, 24) == pytest.approx(1.43, abs=0.005)

    def test_z_of_the_peers_is_a_probability(self):
        # The code of Min-Max gives 0.72575 for 10 of 50, where the share is 24 / 40.
        assert alie_z(50, 10, "cdf") == pytest.approx(0.72575, abs=1e-4)
        # FLANDERS, 20 of 100: s = 31, share 49 / 80.
        assert alie_z(100, 20, "cdf") == pytest.approx(NormalDist().cdf(49 / 80))

    def test_attackers_in_a_majority_still_get_a_number(self):
        assert 0 < alie_z(10, 8) < 2


def test_inner_product_sends_the_negative_mean():
    assert inner_product(OWN, SEEN, scale=0.5).updates.tolist() == [[-1.0, 0.5]] * 2


class TestMinMaxAndMinSum:
    # Along σ = (1, 2) from the mean (2, -1): the farthest of SEEN is (1, -3), at distance
    # √((1 + γ)² + (2 + 2γ)²) = √5 (1 + γ). The farthest two of SEEN are √20 apart.
    def test_min_max_goes_as_far_as_the_two_farthest_are_apart(self):
        sent = min_max(OWN, SEEN, SEEN, "std").updates
        torch.testing.assert_close(sent[0], torch.tensor([2.0 + 1, -1.0 + 2]))
        assert torch.cdist(sent[:1], SEEN).max() == pytest.approx(math.sqrt(20))

    def test_min_sum_goes_as_far_from_all_as_the_farthest(self):
        # Σ ‖u - mean‖² = 4 · 5 and γ² ‖p‖² = 5: the sum is 20 + 4 γ² 5, at γ = 1 that of each.
        sent = min_sum(OWN, SEEN, "std").updates
        torch.testing.assert_close(sent[0], torch.tensor([3.0, 1.0]))
        assert float((sent[0] - SEEN).square().sum()) == pytest.approx(40)

    def test_the_bound_of_the_authors_code_is_the_least_sum(self):
        # Distances to the mean 0: 1, 1, 2, 4, so γ σ = 1 (least) or 4 (largest).
        seen = torch.tensor([[-1.0], [1.0], [-2.0], [2.0], [0.0]])
        for bound, far in (("min", 0.0), ("max", 2.0)):
            sent = min_sum(OWN[:, :1], seen, "std", bound=bound).updates  # pyright: ignore
            assert sent.flatten().tolist() == pytest.approx([far, far])

    @pytest.mark.parametrize("direction", ["unit_vector", "sign", "std"])
    @settings(max_examples=25)
    @given(seed=st.integers(0, 1_000))
    def test_no_larger_factor_fits(self, direction, seed):
        seen = updates(7, 5, seed)
        middle = seen.mean(dim=0)
        reach = torch.cdist(seen, seen).max()
        total = torch.cdist(seen, seen).square().sum(dim=1).max()
        for attack, size, bound in (
            (min_max(seen, seen, seen, direction), lambda u: (u - seen).norm(dim=1).max(), reach),
            (min_sum(seen, seen, direction), lambda u: (u - seen).square().sum(), total),
        ):
            sent = attack.updates[0]
            assert float(size(sent)) == pytest.approx(float(bound), rel=1e-4)
            assert size(middle + 1.01 * (sent - middle)) > bound

    def test_directions_are_those_of_the_paper(self):
        means, moved = SEEN.mean(dim=0), {}
        for direction in ("unit_vector", "sign", "std", "minus_std"):
            sent = min_max(OWN, SEEN, SEEN, direction).updates[0] - means
            moved[direction] = sent / sent.norm()
        expected = {
            "unit_vector": -means / means.norm(),
            "sign": torch.tensor([-1.0, 1.0]) / math.sqrt(2),
            "std": torch.tensor([1.0, 2.0]) / math.sqrt(5),
            "minus_std": torch.tensor([-1.0, -2.0]) / math.sqrt(5),
        }
        for direction, vector in expected.items():
            torch.testing.assert_close(moved[direction], vector)

    def test_peers_search_from_a_start_by_half_steps(self):
        # From 5 by 1.25, 0.625, …: 5, 3.75, 3.125, 2.8125, …, so nothing below 2.5 is tried.
        flanders = Halving(start=5.0, first_step=1.25, otherwise=6.0)
        assert flanders(lambda g: g <= 3) == pytest.approx(3, abs=1e-4)
        assert flanders(lambda g: g <= 2.4) == 6
        authors = Halving(start=10.0, first_step=5.0)
        assert authors(lambda g: g <= 3) == pytest.approx(3, abs=1e-4)
        assert authors(lambda g: False) == 0

    def test_the_search_finds_the_exact_factor_where_it_is_in_reach(self):
        seen, search = updates(9, 6, 3), Halving(start=2.0, first_step=1.0)
        for attack in (partial(min_sum, seen, seen), partial(min_max, seen, seen, seen)):
            exact, searched = attack("std").updates[0], attack("std", search=search).updates[0]
            torch.testing.assert_close(searched, exact, rtol=0, atol=1e-4)
        none_fits = min_max(seen, seen, seen, "std", Halving(100.0, 1.0, otherwise=6.0)).updates[0]
        assert (none_fits - seen.mean(dim=0)).norm() > 2 * (exact - seen.mean(dim=0)).norm()

    def test_equal_updates_leave_no_room(self):
        seen = torch.ones(3, 2)
        assert min_max(OWN, seen, seen, "std").updates[0].tolist() == [1.0, 1.0]
        assert min_sum(OWN, seen, "std").updates[0].tolist() == [1.0, 1.0]


class TestFangOnKrum:
    def test_krum_chooses_it_and_not_twice_as_much(self):
        honest, own = updates(12, 30, 4) / 10, torch.zeros(4, 30)
        sent = fang_krum(own, honest, torch.zeros(30), n_assumed=4, memory={}).updates
        assert bool((sent == sent[0]).all())
        assert bool((sent[0].sign() == -honest.mean(dim=0).sign()).all())

        def chosen(update: torch.Tensor) -> bool:
            rows = torch.cat([honest, update.expand(4, -1)])
            return int(krum(rows, n_malicious=4).weights.argmax()) >= 12

        assert chosen(sent[0])
        assert not chosen(2 * sent[0])

    def test_the_search_begins_at_the_papers_bound(self):
        # Nine equal coordinates, n = 5, c = 1: Σ over the n - c - 2 = 2 nearest of ‖uₗ - uᵢ‖ is
        # 3 · 3 for the client at 1 (to 0 and 3), / (n - 2c - 1) √9 = 6 gives 1.5; the longest
        # update is 3 · 7, / √9. Krum chooses none of -8.5, -4.25, …: the client at 0 is closer.
        honest = torch.tensor([[0.0], [1.0], [3.0], [7.0]]).expand(4, 9)
        sent = fang_krum(torch.zeros(1, 9), honest, torch.zeros(9), 1, {}, threshold=0.1).updates
        torch.testing.assert_close(sent, torch.full((1, 9), -8.5 / 2**7))

    def test_the_flanders_variant_stays_at_the_first_honest_model(self):
        honest, received = torch.tensor([[1.0, -4.0], [2.0, 0.0], [0.0, 1.0]]), torch.ones(2)
        first = fang_krum(OWN, honest, received, 1, {}, around="first_reply")
        # The first model is (2, -3): -λ sign of it.
        step = (received + first.updates[0] - torch.tensor([2.0, -3.0])) / torch.tensor([-1.0, 1.0])
        assert float(step[0]) == pytest.approx(float(step[1]))
        assert step[0] > 0
        moved = received + 5
        later = fang_krum(OWN, honest + 9, moved, 1, first.memory, around="first_reply")
        assert later.memory["anchor"].tolist() == [2.0, -3.0]

    def test_colluders_without_honest_updates_convince_krum_among_themselves(self):
        own = updates(9, 30, 1) / 10
        sent = fang_krum_partial(torch.zeros(9, 30), own).updates
        assert bool((sent[0].sign() == -own.mean(dim=0).sign()).all())

        def chosen(copy: torch.Tensor) -> bool:
            return bool(krum(torch.cat([own, copy[None]]), n_malicious=1).weights[9] == 1)

        assert chosen(sent[0])
        assert not chosen(2 * sent[0])

    def test_colluders_add_copies_until_krum_chooses_one(self):
        # A copy at -λ is (1 + λ)² from its nearest, they are 1 from theirs; two copies are at one
        # place, whatever λ is: its upper bound, 1 (the nearest) + 3 (the longest).
        own = torch.tensor([[1.0], [2.0], [3.0]])
        assert fang_krum_partial(torch.zeros(3, 1), own).updates.tolist() == [[-4.0]] * 3


class TestFangOnTrimmedMean:
    def test_values_lie_beyond_the_extremes_on_the_side_left_behind(self):
        # Models: received + update. Coordinates: falls with a positive maximum, falls with a
        # negative one, rises with a positive minimum, rises with a negative one.
        received = torch.tensor([5.0, -5.0, 5.0, -5.0])
        honest = torch.tensor([[-1.0, -1.0, 1.0, 1.0], [-3.0, -3.0, 3.0, 3.0]])
        sent = fang_trimmed_mean(torch.zeros(200, 4), honest, received, rng()).updates + received
        # Extremes 4, -6, 6, -4; b = 2 stretches outwards: [4, 8], [-6, -3], [3, 6], [-8, -4].
        low, high = torch.tensor([4.0, -6, 3, -8]), torch.tensor([8.0, -3, 6, -4])
        assert bool(((sent >= low - 1e-5) & (sent <= high + 1e-5)).all())
        assert bool(((sent.amax(dim=0) - sent.amin(dim=0)) > 0.9 * (high - low)).all())

    def test_stretching_updates_leaves_the_received_model_out(self):
        honest = torch.tensor([[-1.0], [-3.0]])
        attack = partial(fang_trimmed_mean, torch.zeros(50, 1), honest, torch.tensor([100.0]))
        sent = attack(rng(), values="updates").updates
        assert bool(((sent >= -1) & (sent <= -0.5)).all())

    def test_colluders_go_three_to_four_deviations_out(self):
        own = torch.tensor([[-1.0, 1.0], [-5.0, 5.0]]).repeat(50, 1)  # means ∓3, deviations 2
        sent = fang_trimmed_mean_partial(own, own, rng()).updates
        assert bool(((sent[:, 0] >= 3) & (sent[:, 0] <= 5)).all())
        assert bool(((sent[:, 1] <= -3) & (sent[:, 1] >= -5)).all())
        assert bool((sent.amax(dim=0) - sent.amin(dim=0) > 1.8).all())


class TestMimic:
    CLIENTS = torch.tensor([3, 5, 8, 9])

    def test_all_attackers_send_the_update_of_the_client_they_are_told(self):
        sent = mimic(OWN, SEEN, self.CLIENTS, {}, rng(), client=8).updates
        assert sent.tolist() == [SEEN[2].tolist()] * 2
        assert torch.equal(mimic(OWN, SEEN, self.CLIENTS, {}, rng(), client=7).updates, OWN)

    def test_it_finds_the_direction_in_which_clients_differ(self):
        # They differ by ±10 in the first coordinate and by little else.
        seen = torch.tensor([[10.0, 0.1], [-10.0, 0.2], [-10.0, -0.1], [-10.0, 0.0]])
        forged = mimic(OWN, seen, self.CLIENTS, {}, rng(1))
        direction = forged.memory["direction"]
        assert abs(float(direction[0])) == pytest.approx(1, abs=0.01)
        chosen = int((seen @ direction).argmax())
        assert forged.updates.tolist() == [seen[chosen].tolist()] * 2
        assert int(forged.memory["client"]) == int(self.CLIENTS[chosen])

    def test_it_stays_with_its_client_and_replaces_one_that_is_away(self):
        first = mimic(OWN, SEEN, self.CLIENTS, {}, rng())
        chosen = int((first.memory["client"] == self.CLIENTS).nonzero())
        again = mimic(OWN, -SEEN, self.CLIENTS, first.memory, rng())
        assert again.updates[0].tolist() == (-SEEN[chosen]).tolist()
        others = [row for row in range(4) if row != chosen]
        away = mimic(OWN, SEEN[others], self.CLIENTS[others], first.memory, rng())
        nearest = (SEEN[others] @ first.memory["direction"]).argmax()
        assert away.updates[0].tolist() == SEEN[others][nearest].tolist()

    def test_the_mean_runs_over_the_rounds_of_the_warm_up(self):
        first = mimic(OWN, SEEN, self.CLIENTS, {}, rng(), warm_up_rounds=2)
        second = mimic(OWN, SEEN + 2, self.CLIENTS, first.memory, rng(), warm_up_rounds=2)
        assert second.memory["mean"].tolist() == [3.0, 0.0]
        third = mimic(OWN, SEEN + 9, self.CLIENTS, second.memory, rng(), warm_up_rounds=2)
        assert third.memory["mean"].tolist() == [3.0, 0.0]

    def test_each_round_of_the_warm_up_is_a_step_of_a_power_iteration(self):
        memory, z, rounds = {}, None, [updates(4, 6, seed) for seed in range(3)]
        for t, seen in enumerate(rounds):
            memory = mimic(updates(2, 6, 9), seen, self.CLIENTS, memory, rng(), None, 3).memory
            if z is not None:
                off = seen - torch.cat(rounds[: t + 1]).mean(dim=0)
                pull = (off @ z) @ off
                z = t * z + pull / pull.norm()
                torch.testing.assert_close(memory["direction"], z / z.norm())
            z = memory["direction"]


class TestTailored:
    @staticmethod
    def against(rule, seen: torch.Tensor, f: int):
        return lambda update: rule(torch.cat([seen, update.expand(f, -1)])).update

    def test_it_finds_the_cliff_of_a_rule_that_drops_what_is_too_far(self):
        # Everything up to 3.3 counts, nothing beyond.
        found = most_effective(lambda g: g if g <= 3.3 else 0.0, start=0.1, n_evaluations=20)
        assert 3.2 < found <= 3.3
        assert most_effective(lambda g: g if g <= 3.3 else 0.0, 50.0, 20) == pytest.approx(
            3, abs=0.4
        )

    def test_it_finds_a_peak_on_either_side_of_what_doubling_finds(self):
        for peak in (3.6, 4.4):
            found = most_effective(lambda g, peak=peak: -abs(g - peak), 1.0, n_evaluations=20)
            assert found == pytest.approx(peak, abs=0.01)

    def test_it_asks_as_often_as_told_and_nearer_where_further_out_does_not_help(self):
        asked: list[float] = []

        def effect(gamma: float) -> float:
            asked.append(gamma)
            return -gamma

        for n in (1, 2, 3, 6, 9):
            asked.clear()
            most_effective(effect, 1.0, n)
            assert len(asked) == n
            assert asked[:7] == [1, 2, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32][:n]

    def test_without_a_direction_it_stays_at_the_mean(self):
        seen = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        sent = tailored(OWN, seen, lambda update: update, "unit_vector").updates
        assert torch.equal(sent, torch.zeros(2, 2))

    def test_it_begins_as_far_out_as_honest_updates_are(self):
        sent = tailored(OWN, SEEN, lambda update: update, "unit_vector", n_evaluations=1).updates
        # As far as the origin is from their mean, (2, -1): against the mean that is where it ends.
        torch.testing.assert_close(sent, torch.zeros(2, 2))

    @pytest.mark.parametrize("direction", ["unit_vector", "std", "sign"])
    @pytest.mark.parametrize(
        "rule", [partial(multi_krum, n_malicious=3), partial(trimmed_mean, n_malicious=3)]
    )
    def test_it_moves_the_rule_at_least_as_far_as_fixed_factors(self, rule, direction):
        seen, own = updates(10, 20, 1), torch.zeros(3, 20)
        defence = self.against(rule, seen, 3)
        best = tailored(own, seen, defence, direction).updates[0]
        middle = seen.mean(dim=0)

        def moved(update: torch.Tensor) -> float:
            return float((defence(update) - middle).norm())

        step = (best - middle) / (best - middle).norm()
        for length in (0.5, 2.0, 8.0, 100.0):
            assert moved(best) >= 0.999 * moved(middle + length * step)

    def test_against_the_mean_more_is_always_better(self):
        defence = self.against(mean, SEEN, 2)
        sent = tailored(OWN, SEEN, defence, "std", n_evaluations=20).updates[0]
        assert float((sent - SEEN.mean(dim=0)).norm()) > 1e4


class TestMinorityMimic:
    # The minority are the clients at (3, ±...): mean (3, -1), 2 from it each, 4 from the other.
    MINORITY = torch.tensor([False, False, True, True])

    def test_the_poison_is_as_long_as_minority_clients_are_apart(self):
        clean = OWN - torch.tensor([[0.0, 6.0], [0.3, 0.4]])
        sent = minority_mimic(OWN, clean, SEEN, self.MINORITY).updates
        expected = torch.tensor([[3.0, -1.0 + 4], [3 + 0.6 * 4, -1 + 0.8 * 4]])
        torch.testing.assert_close(sent, expected)
        nearer = minority_mimic(OWN, clean, SEEN, self.MINORITY, closeness=0.5).updates
        torch.testing.assert_close(nearer[0], torch.tensor([3.0, 1.0]))

    def test_in_a_box_no_coordinate_leaves_the_minoritys_spread(self):
        clean = OWN - torch.tensor([[5.0, 6.0], [-5.0, 1.0]])
        sent = minority_mimic(OWN, clean, SEEN, self.MINORITY, within="box").updates
        torch.testing.assert_close(sent, torch.tensor([[3.0, 1.0], [3.0, 0.0]]))
        nearer = minority_mimic(OWN, clean, SEEN, self.MINORITY, closeness=0.5, within="box")
        torch.testing.assert_close(nearer.updates, torch.tensor([[3.0, 0.0], [3.0, 0.0]]))

    def test_krum_trusts_it_no_less_than_minority_clients(self):
        honest = torch.cat([updates(12, 40, 1), updates(4, 40, 2) + 3])
        minority = torch.arange(16) >= 12
        own, clean = updates(4, 40, 3), updates(4, 40, 4)
        sent = minority_mimic(own, clean, honest, minority, closeness=0.5).updates
        scores = krum(torch.cat([honest, sent]), n_malicious=4).suspicion
        assert scores[16:].max() <= scores[12:16].max()

    def test_a_minority_of_one_shows_no_spread_to_cut_the_poison_to(self):
        alone = torch.tensor([False, False, False, True])
        sent = minority_mimic(OWN, OWN - 2, SEEN, alone, closeness=0.5).updates
        torch.testing.assert_close(sent, (SEEN[3] + 1).expand(2, 2))

    def test_without_a_minority_it_poses_as_anybody(self):
        nobody = torch.zeros(4, dtype=torch.bool)
        sent = minority_mimic(OWN, OWN - 1, SEEN, nobody).updates
        spread = math.sqrt(5) * 4 / 3
        assert float((sent[0] - SEEN.mean(dim=0)).norm()) == pytest.approx(spread, rel=1e-5)


class TestSchedule:
    @pytest.mark.parametrize(
        ("schedule", "rounds"),
        [
            (Schedule(), [1, 2, 3, 4, 5, 6, 7, 8]),
            (Schedule(first=3), [3, 4, 5, 6, 7, 8]),
            (Schedule(first=4, last=4), [4]),
            (Schedule(every=3), [1, 4, 7]),
            (Schedule(first=2, every=3, last=7), [2, 5]),
        ],
    )
    def test_attackers_attack_in_these_rounds(self, schedule, rounds):
        assert [round_ for round_ in range(1, 9) if schedule.is_active(round_)] == rounds


class TestPoisonedFL:
    def after(self, *models: torch.Tensor, window: int = 50, **memory: float) -> Forged:
        """Return what is sent on receiving the last of some models, and what is remembered."""
        forged = Forged(OWN)
        for model in models:
            known = {**forged.memory, **{k: torch.tensor(v) for k, v in memory.items()}}
            known = known if forged.memory else {}
            own = torch.ones(2, len(model))
            forged = poisonedfl(own, model, known, rng(), window=window)
        return forged

    def test_it_sends_nothing_first_and_keeps_the_signs_that_it_draws(self):
        first, second = torch.zeros(1000), torch.ones(1000)
        forged = self.after(first)
        assert forged.updates.tolist() == first.expand(2, -1).tolist()
        signs = forged.memory["signs"]
        assert set(signs.tolist()) == {-1, 1}
        assert abs(float(signs.mean())) < 0.1
        sent = poisonedfl(torch.ones(2, 1000), second, forged.memory, rng(9)).updates
        torch.testing.assert_close(sent[0], 8 * signs)  # the model moved by 1 everywhere

    def test_it_pushes_where_others_moved_the_model(self):
        # A move of length 5 after an update of length 2: the rest is (3, 4) - 5 / 2 · (0, 2).
        memory = {"received": torch.zeros(2), "sent": torch.tensor([0.0, 2]), "rounds": 1}
        memory |= {"signs": torch.tensor([1.0, -1]), "start": torch.zeros(2), "factor": 8.0}
        memory = {name: torch.as_tensor(value) for name, value in memory.items()}
        forged = poisonedfl(OWN, torch.tensor([3.0, 4]), memory, rng())
        expected = 8 * 5 * torch.tensor([3.0, -1]) / math.sqrt(10)
        torch.testing.assert_close(forged.updates, expected.expand(2, -1))
        torch.testing.assert_close(forged.memory["sent"], expected)
        assert forged.memory["received"].tolist() == [3, 4]

    def test_where_the_model_has_not_moved_it_sends_nothing(self):
        assert not self.after(torch.ones(3), torch.ones(3)).updates.any()

    @pytest.mark.parametrize(("along", "factor"), [(62, 8.0), (61, 5.6), (0, 5.6)])
    def test_the_factor_falls_unless_coins_would_hardly_follow_so_well(self, along, factor):
        # Of 100 fair coins at most 62 fall on one side with a probability of 0.99, and 61 do not.
        start = torch.full((100,), 5.0)
        signs = self.after(start).memory["signs"]
        move = torch.cat([signs[:along], -signs[along:]])
        assert float(self.after(start, start + move, window=2).memory["factor"]) == 8
        # The last move alone is against the signs: what counts is the whole window.
        forged = self.after(start, start + 3 * move, start + move, window=2)
        assert float(forged.memory["factor"]) == pytest.approx(factor)
        torch.testing.assert_close(forged.memory["start"], start + move)

    def test_a_window_begins_when_one_has_ended_and_the_factor_has_a_least_value(self):
        models = [torch.full((100,), float(i)) for i in range(8)]  # never along random signs
        factors = [float(self.after(*models[:n], window=3).memory["factor"]) for n in range(1, 9)]
        assert factors == pytest.approx([8, 8, 8, 5.6, 5.6, 5.6, 3.92, 3.92])
        for factor, lowered in ((0.72, 0.504), (0.7, 0.7)):  # 0.49 would be below 0.5
            forged = self.after(*models[:4], window=3, factor=factor)
            assert float(forged.memory["factor"]) == pytest.approx(lowered)

    def test_a_coordinate_that_has_not_moved_counts_by_the_sign_of_its_parameter(self):
        signs = self.after(torch.zeros(100)).memory["signs"]
        still = self.after(signs, signs, window=1)
        assert float(still.memory["factor"]) == 8
        assert float(self.after(-signs, -signs, window=1).memory["factor"]) < 8


def test_attackers_change_neither_what_they_see_nor_their_own():
    seen, own = updates(8, 10, 1), updates(3, 10, 2)
    before = seen.clone(), own.clone()
    for attack in (
        partial(sign_flip),
        partial(gaussian, rng=rng(), convention="add"),
        partial(model_replacement, n_clients=11, n_attackers=3),
        partial(alie, sample=seen, n_clients=11, n_attackers=3),
        partial(inner_product, sample=seen, scale=2.0),
        partial(min_max, seen=seen, sample=seen),
        partial(min_sum, seen=seen),
        partial(fang_krum, seen=seen, received=torch.ones(10), n_assumed=3, memory={}),
        partial(fang_krum_partial, seen=own),
        partial(fang_trimmed_mean, seen=seen, received=torch.ones(10), rng=rng()),
        partial(fang_trimmed_mean_partial, seen=own, rng=rng()),
        partial(mimic, seen=seen, seen_clients=torch.arange(8), memory={}, rng=rng()),
        partial(poisonedfl, received=torch.ones(10), memory={}, rng=rng()),
        partial(tailored, seen=seen, defence=lambda update: update),
        partial(minority_mimic, clean=own - 1, seen=seen, is_minority=torch.arange(8) > 5),
    ):
        assert attack(own).updates.shape == own.shape
        assert torch.equal(seen, before[0])
        assert torch.equal(own, before[1])
