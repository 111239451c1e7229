"""Pure reweighting rules: the clients' losses in, a :class:`Lift` out."""

from strategies.memory import Memory
from strategies.reweighting.agnostic import agnostic, exponentiated_gradient
from strategies.reweighting.jtt import jtt
from strategies.reweighting.lift import Lift, Reweighter
from strategies.reweighting.q_fedavg import q_fedavg

__all__ = [
    "Lift",
    "Memory",
    "Reweighter",
    "agnostic",
    "exponentiated_gradient",
    "jtt",
    "q_fedavg",
]
