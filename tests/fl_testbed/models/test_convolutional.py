import pytest
import torch
from torch import nn

from fl_testbed.models import cnn, lenet, resnet18, resnet50


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_lenet_on_28_pixels_is_the_paper_s():
    # 6 (25 + 1), 16 (150 + 1), 400 × 120 + 120, 120 × 84 + 84, 84 × 10 + 10: LeNet-5 with every
    # filter of the second layer seeing all six of the first.
    model = lenet((1, 28, 28), 10)
    assert n_parameters(model) == 156 + 2_416 + 48_120 + 10_164 + 850
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_cnn_with_one_pooling_is_pytorch_s_mnist_example():
    model = cnn((1, 28, 28), 10, [32, 64], 128, pooling="last")
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    assert linear[0].in_features == 9_216
    assert n_parameters(model) == 1_199_882


def test_resnet18_has_the_paper_s_size_and_no_running_statistics():
    # torchvision's has 11,689,512 for 1,000 classes and a 7 × 7 first layer; GroupNorm has as many
    # parameters as BatchNorm.
    model = resnet18((3, 32, 32), 10)
    assert n_parameters(model) == 11_689_512 - 9_408 + 1_728 - 513_000 + 5_130
    assert not list(model.buffers())


def test_resnet50_has_the_paper_s_size():
    # torchvision's has 25,557,032 with its first layer and 1,000 classes.
    expected = 25_557_032 - 9_408 + 1_728 - 2_049_000 + 20_490
    assert n_parameters(resnet50((3, 32, 32), 10)) == expected


@pytest.mark.parametrize(
    "build",
    [
        lambda shape: lenet(shape, 5),
        lambda shape: cnn(shape, 5, [4, 8], 6),
        lambda shape: cnn(shape, 5, [4], 6, pooling="last"),
        lambda shape: resnet18(shape, 5, width=8),
        lambda shape: resnet50(shape, 5, width=4),
    ],
    ids=["lenet", "cnn", "cnn_last", "resnet18", "resnet50"],
)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 14, 28)])
class TestEveryModel:
    def test_it_takes_images_of_any_size(self, build, shape):
        model = build(shape)
        logits = model(torch.rand(3, *shape))
        assert logits.shape == (3, 5)
        logits.sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_one_example_s_answer_does_not_depend_on_the_others(self, build, shape):
        # BatchNorm's would, and defences would see it.
        model, images = build(shape).train(), torch.rand(3, *shape)
        torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=1e-3, atol=1e-5)


def test_too_many_poolings_are_refused():
    with pytest.raises(ValueError, match="4 layers of a cnn leave nothing of 8 × 8 images"):
        cnn((1, 8, 8), 2, [4, 4, 4, 4], 6)
    assert cnn((1, 8, 8), 2, [4, 4, 4], 6)
