"""Pure aggregation rules: ``(n, d)`` updates in, one :class:`Aggregate` out."""

from strategies.aggregation.aggregate import Aggregate, Aggregator, TooFewClientsError
from strategies.aggregation.alignins import alignins
from strategies.aggregation.bound import Bound
from strategies.aggregation.bulyan import bulyan, bulyan_bound
from strategies.aggregation.caf import caf, caf_bound
from strategies.aggregation.centred_clipping import centred_clipping
from strategies.aggregation.coordinate_median import coordinate_median
from strategies.aggregation.deepsight import deepsight, deepsight_bound
from strategies.aggregation.dnc import dnc, dnc_bound
from strategies.aggregation.flame import flame, flame_bound
from strategies.aggregation.fldetector import fldetector
from strategies.aggregation.fltrust import fltrust
from strategies.aggregation.foolsgold import foolsgold
from strategies.aggregation.geometric_median import geometric_median
from strategies.aggregation.k_loss import k_loss, k_loss_bound
from strategies.aggregation.k_norm import k_norm, k_norm_bound
from strategies.aggregation.krum import (
    iterative_multi_krum,
    iterative_multi_krum_bound,
    krum,
    krum_bound,
    multi_krum,
    multi_krum_bound,
)
from strategies.aggregation.mean import mean
from strategies.aggregation.mean_around_median import mean_around_median, mean_around_median_bound
from strategies.aggregation.minimum_diameter import minimum_diameter, minimum_diameter_bound
from strategies.aggregation.negative_impact import (
    error_rate_rejection,
    error_rate_rejection_bound,
    loss_rejection,
    loss_rejection_bound,
    union_rejection,
    union_rejection_bound,
)
from strategies.aggregation.norm_clipping import norm_clipping
from strategies.aggregation.robust_learning_rate import robust_learning_rate
from strategies.aggregation.sign_guard import sign_guard
from strategies.aggregation.trimmed_mean import trimmed_mean, trimmed_mean_bound
from strategies.aggregation.weak_dp import weak_dp

__all__ = [
    "Aggregate",
    "Aggregator",
    "Bound",
    "TooFewClientsError",
    "alignins",
    "bulyan",
    "bulyan_bound",
    "caf",
    "caf_bound",
    "centred_clipping",
    "coordinate_median",
    "deepsight",
    "deepsight_bound",
    "dnc",
    "dnc_bound",
    "error_rate_rejection",
    "error_rate_rejection_bound",
    "flame",
    "flame_bound",
    "fldetector",
    "fltrust",
    "foolsgold",
    "geometric_median",
    "iterative_multi_krum",
    "iterative_multi_krum_bound",
    "k_loss",
    "k_loss_bound",
    "k_norm",
    "k_norm_bound",
    "krum",
    "krum_bound",
    "loss_rejection",
    "loss_rejection_bound",
    "mean",
    "mean_around_median",
    "mean_around_median_bound",
    "minimum_diameter",
    "minimum_diameter_bound",
    "multi_krum",
    "multi_krum_bound",
    "norm_clipping",
    "robust_learning_rate",
    "sign_guard",
    "trimmed_mean",
    "trimmed_mean_bound",
    "union_rejection",
    "union_rejection_bound",
    "weak_dp",
]

COMPARE_PAIRS = {
    bulyan,
    caf,
    deepsight,
    dnc,
    flame,
    foolsgold,
    geometric_median,
    iterative_multi_krum,
    krum,
    minimum_diameter,
    multi_krum,
}
"""What works on a figure for every pair of clients: five (n, n) matrices of float64 at most."""
