"""Small models, named for what they are."""

from fl_testbed.models.mlp import Normalise, mlp

__all__ = ["Normalise", "mlp"]
