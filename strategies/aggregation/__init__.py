"""Pure aggregation rules: ``(n, d)`` updates in, one :class:`Aggregate` out."""

from strategies.aggregation.aggregate import Aggregate, Aggregator, TooFewClientsError
from strategies.aggregation.fltrust import fltrust
from strategies.aggregation.krum import krum, krum_bound, multi_krum, multi_krum_bound
from strategies.aggregation.mean import mean
from strategies.aggregation.norm_clipping import norm_clipping
from strategies.aggregation.trimmed_mean import trimmed_mean, trimmed_mean_bound

__all__ = [
    "Aggregate",
    "Aggregator",
    "TooFewClientsError",
    "fltrust",
    "krum",
    "krum_bound",
    "mean",
    "multi_krum",
    "multi_krum_bound",
    "norm_clipping",
    "trimmed_mean",
    "trimmed_mean_bound",
]
