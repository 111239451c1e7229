"""Pure steps before a rule: ``(n, d)`` rows in, other rows and their mixing matrix out."""

from strategies.pre_aggregation.bucketing import bucketing, n_buckets
from strategies.pre_aggregation.clipping import adaptive_clipping, clipping
from strategies.pre_aggregation.mixed import Mixed, PreAggregator
from strategies.pre_aggregation.nearest_neighbour_mixing import nearest_neighbour_mixing

__all__ = [
    "Mixed",
    "PreAggregator",
    "adaptive_clipping",
    "bucketing",
    "clipping",
    "n_buckets",
    "nearest_neighbour_mixing",
]
