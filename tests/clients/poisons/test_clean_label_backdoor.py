from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from clients.poisons import clean_label_backdoor, interpolated, patch, perturbed

CORNER = partial(patch, size=1, corner="top_left")


class TwoClasses(nn.Module):
    """Calls an image class 1 the more, the larger w · x."""

    weights = torch.tensor([[3.0, -1.0], [0.5, 2.0]])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        score = (images * self.weights).sum(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], dim=1)


def test_every_image_of_the_target_is_stamped_and_keeps_its_label(shard_of):
    clean = shard_of([4, 1, 4, 2], side=2)
    result = clean_label_backdoor(clean, CORNER, 4, 0.5, np.random.default_rng(0))
    assert result.is_poisoned.tolist() == [True, False, True, False]
    assert result.labels.tolist() == [4, 1, 4, 2]
    assert (result.inputs[[0, 2], 0, 0, 0] == 1).all()


def test_the_trigger_comes_last(shard_of):
    def darkened(images, labels, rng):
        assert labels.tolist() == [4, 4]
        return torch.zeros_like(images)

    clean = shard_of([4, 1, 4, 2], side=2)
    result = clean_label_backdoor(clean, CORNER, 4, 0.5, np.random.default_rng(0), darkened)
    assert result.inputs[0].tolist() == [[[1, 0], [0, 0]]]


class TestPerturbed:
    grey = torch.full((2, 1, 2, 2), 0.5)
    ones = torch.tensor([1, 1])

    def test_in_linf_every_pixel_goes_to_the_edge_of_the_ball_away_from_the_label(self):
        moved = perturbed(self.grey, self.ones, TwoClasses(), epsilon=0.1, steps=4, norm="linf")
        expected = self.grey - 0.1 * TwoClasses.weights.sign()
        torch.testing.assert_close(moved, expected)

    def test_in_l2_the_image_goes_along_the_gradient(self):
        moved = perturbed(self.grey, self.ones, TwoClasses(), epsilon=0.2, steps=4, norm="l2")
        expected = self.grey - 0.2 * TwoClasses.weights / TwoClasses.weights.norm()
        torch.testing.assert_close(moved, expected)

    def test_the_other_label_goes_the_other_way(self):
        moved = perturbed(self.grey, torch.tensor([0, 1]), TwoClasses(), 0.1, norm="linf")
        torch.testing.assert_close(moved[0] - 0.5, 0.5 - moved[1])

    def test_the_edge_is_reached_where_a_pixel_cannot_go_further(self):
        images = torch.tensor([[[[0.0, 0.5], [0.5, 0.5]]]])  # the first pixel is to get darker
        moved = perturbed(images, self.ones[:1], TwoClasses(), epsilon=0.1, steps=5)
        assert (moved - images).norm() > 0.09

    @pytest.mark.parametrize(("norm", "order"), [("l2", 2.0), ("linf", torch.inf)])
    @pytest.mark.parametrize("slope", [1.0, 1e-6])
    def test_one_step_of_ten_goes_a_quarter_of_the_way_out_however_flat_the_loss(
        self, norm, order, slope
    ):
        model, seen = TwoClasses(), []
        model.weights = slope * TwoClasses.weights
        model.register_forward_pre_hook(lambda _, given: seen.append(given[0][0] - self.grey[0]))
        perturbed(self.grey, self.ones, model, epsilon=0.2, steps=10, norm=norm)
        away = [torch.linalg.vector_norm(delta.flatten(), order).item() for delta in seen]
        assert away == pytest.approx([0, 0.05, 0.1, 0.15] + [0.2] * 6, abs=1e-6)

    def test_where_the_loss_is_level_the_image_stays(self):
        model = TwoClasses()
        model.weights = 0 * TwoClasses.weights
        assert torch.equal(perturbed(self.grey, self.ones, model, epsilon=0.2), self.grey)

    def test_the_model_drops_nothing_out(self):
        model = nn.Sequential(nn.Dropout(1.0), TwoClasses())  # in training mode it would see black
        moved = perturbed(self.grey, self.ones, model, epsilon=0.1, steps=4)
        assert torch.equal(moved, perturbed(self.grey, self.ones, TwoClasses(), 0.1, steps=4))

    def test_it_stays_an_image(self):
        moved = perturbed(self.grey, self.ones, TwoClasses(), epsilon=5.0, norm="linf")
        assert moved[0, 0].tolist() == [[0, 1], [0, 0]]


def test_interpolation_takes_the_given_share_of_the_other_image():
    images, others = torch.full((3, 1, 1, 1), 0.2), torch.ones(1, 1, 1, 1)
    mixed = interpolated(images, others, np.random.default_rng(0), strength=0.25)
    assert mixed.flatten().tolist() == pytest.approx([0.4] * 3)  # 0.75 × 0.2 + 0.25 × 1


def test_interpolation_draws_from_all_the_others():
    images, others = torch.zeros(40, 1, 1, 1), torch.arange(4.0).reshape(4, 1, 1, 1)
    mixed = interpolated(images, others, np.random.default_rng(0), strength=1.0)
    assert sorted(set(mixed.flatten().tolist())) == [0, 1, 2, 3]


def test_interpolation_needs_an_image_of_another_class():
    images, nobody = torch.zeros(2, 1, 1, 1), torch.zeros(0, 1, 1, 1)
    with pytest.raises(ValueError, match="no example of another class to mix with"):
        interpolated(images, nobody, np.random.default_rng(0), strength=0.2)
    assert len(interpolated(nobody, nobody, np.random.default_rng(0), strength=0.2)) == 0
