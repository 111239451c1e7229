"""Our norm clipping as a Flower strategy that is only watched from outside."""

from strategies.aggregation import norm_clipping
from strategies.robust import RobustFedAvg


def clipping(**fedavg):
    return RobustFedAvg(norm_clipping, **fedavg)
