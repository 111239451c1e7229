import pytest
import torch
from torch import nn

from fl_testbed.models import Normalise, mlp


def seeded(seed: int, hidden: list[int]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return mlp((1, 2, 3), 4, hidden)


@pytest.mark.parametrize(
    ("hidden", "shapes"),
    [
        ([], [(4, 6), (4,)]),
        ([5], [(5, 6), (5,), (4, 5), (4,)]),
        ([5, 3], [(5, 6), (5,), (3, 5), (3,), (4, 3), (4,)]),
    ],
)
def test_layers_have_the_widths_asked_for(hidden, shapes):
    model = mlp((1, 2, 3), 4, hidden)
    assert [tuple(p.shape) for p in model.parameters()] == shapes
    assert model(torch.zeros(7, 1, 2, 3)).shape == (7, 4)


def test_no_hidden_layer_is_logistic_regression_on_pixels_in_minus_one_to_one():
    model = seeded(0, [])
    weight, bias = model.parameters()
    images = torch.rand(7, 1, 2, 3, generator=torch.Generator().manual_seed(1))
    expected = (2 * images.flatten(1) - 1) @ weight.T + bias
    torch.testing.assert_close(model(images), expected)


def test_hidden_layers_are_rectified_and_the_output_is_not():
    # One hidden unit with z = 2x - 1; the output is max(z, 0) - 1.
    model = mlp((1, 1, 1), 1, [1])
    for parameter, value in zip(model.parameters(), (1.0, 0.0, 1.0, -1.0), strict=True):
        nn.init.constant_(parameter, value)
    images = torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1)
    assert model(images).flatten().tolist() == [-1, -1, 0]


def test_dropout_doubles_the_hidden_units_that_it_leaves_while_training_alone():
    # A thousand hidden units of value 1, summed; half of them are left out.
    model = mlp((1,), 1, [1000], dropout=0.5)
    for parameter, value in zip(model.parameters(), (0.0, 1.0, 1.0, 0.0), strict=True):
        nn.init.constant_(parameter, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left = model.train()(torch.zeros(1, 1)).item() / 2
    assert left == round(left)
    assert 400 < left < 600
    assert model.eval()(torch.zeros(1, 1)).item() == 1000


def test_features_come_scaled_and_are_taken_as_they_are():
    model = mlp((2,), 1, [])
    weight, bias = model.parameters()
    features = torch.tensor([[3.0, -4.0]])
    torch.testing.assert_close(model(features), features @ weight.T + bias)


def test_black_and_white_are_equally_far_from_grey():
    assert Normalise()(torch.tensor([0.0, 0.5, 1.0])).tolist() == [-1, 0, 1]
