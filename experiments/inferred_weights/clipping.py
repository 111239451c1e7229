"""Our norm clipping as a Flower strategy whose weights are only inferred from outside."""

from strategies.aggregation import norm_clipping
from strategies.robust import RobustFedAvg


def clipping(**fedavg):
    return RobustFedAvg(norm_clipping, **fedavg)
