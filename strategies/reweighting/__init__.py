"""Pure reweighting rules: the clients' losses or updates in, a :class:`Lift` out."""

from strategies.memory import Memory
from strategies.reweighting.afl import afl, drfa
from strategies.reweighting.agnostic import agnostic, exponentiated_gradient
from strategies.reweighting.fedmgda_plus import fedmgda_plus
from strategies.reweighting.group_dro import group_dro
from strategies.reweighting.jtt import jtt
from strategies.reweighting.lift import Lift, Reweighter
from strategies.reweighting.q_fedavg import q_fedavg
from strategies.reweighting.simplex import project_to_simplex
from strategies.reweighting.tilted import tilted

__all__ = [
    "Lift",
    "Memory",
    "Reweighter",
    "afl",
    "agnostic",
    "drfa",
    "exponentiated_gradient",
    "fedmgda_plus",
    "group_dro",
    "jtt",
    "project_to_simplex",
    "q_fedavg",
    "tilted",
]
