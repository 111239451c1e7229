"""Pure aggregation rules: ``(n, d)`` updates in, one :class:`Aggregate` out."""

from strategies.aggregation.aggregate import Aggregate, Aggregator, TooFewClientsError
from strategies.aggregation.alignins import alignins
from strategies.aggregation.bulyan import bulyan
from strategies.aggregation.caf import caf
from strategies.aggregation.centred_clipping import centred_clipping
from strategies.aggregation.coordinate_median import coordinate_median
from strategies.aggregation.deepsight import deepsight
from strategies.aggregation.dnc import dnc
from strategies.aggregation.feddlad import feddlad
from strategies.aggregation.flame import flame
from strategies.aggregation.flare import flare
from strategies.aggregation.fldetector import fldetector
from strategies.aggregation.fltrust import fltrust
from strategies.aggregation.foolsgold import foolsgold
from strategies.aggregation.freqfed import freqfed
from strategies.aggregation.geometric_median import geometric_median
from strategies.aggregation.k_loss import k_loss
from strategies.aggregation.k_norm import k_norm
from strategies.aggregation.krum import iterative_multi_krum, krum, multi_krum
from strategies.aggregation.lasa import lasa
from strategies.aggregation.mean import mean
from strategies.aggregation.mean_around_median import mean_around_median
from strategies.aggregation.minimum_diameter import minimum_diameter
from strategies.aggregation.negative_impact import (
    error_rate_rejection,
    loss_rejection,
    union_rejection,
)
from strategies.aggregation.norm_clipping import norm_clipping
from strategies.aggregation.rflbat import rflbat
from strategies.aggregation.robust_learning_rate import robust_learning_rate
from strategies.aggregation.sign_guard import sign_guard
from strategies.aggregation.traits import Bound, Traits
from strategies.aggregation.trimmed_mean import trimmed_mean
from strategies.aggregation.weak_dp import weak_dp

__all__ = [
    "Aggregate",
    "Aggregator",
    "Bound",
    "TooFewClientsError",
    "Traits",
    "alignins",
    "bulyan",
    "caf",
    "centred_clipping",
    "coordinate_median",
    "deepsight",
    "dnc",
    "error_rate_rejection",
    "feddlad",
    "flame",
    "flare",
    "fldetector",
    "fltrust",
    "foolsgold",
    "freqfed",
    "geometric_median",
    "iterative_multi_krum",
    "k_loss",
    "k_norm",
    "krum",
    "lasa",
    "loss_rejection",
    "mean",
    "mean_around_median",
    "minimum_diameter",
    "multi_krum",
    "norm_clipping",
    "rflbat",
    "robust_learning_rate",
    "sign_guard",
    "trimmed_mean",
    "union_rejection",
    "weak_dp",
]
