"""Small models, named for what they are."""

from fl_testbed.models.convolutional import cnn, lenet, resnet18, resnet50
from fl_testbed.models.inputs import Normalise
from fl_testbed.models.mlp import mlp

__all__ = ["Normalise", "cnn", "lenet", "mlp", "resnet18", "resnet50"]
