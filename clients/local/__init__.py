"""Group-robust, personal, proximal and averaged training inside a client."""

from clients.local.ditto import Ditto
from clients.local.example_jtt import ExampleJtt, flagged_by, with_copies
from clients.local.group_dro import ExampleGroupDro, GroupWeights
from clients.local.lesson import Lesson, LocalMethod, LocalRound
from clients.local.proximal import FedProx, PulledTowards
from clients.local.worker_momentum import WorkerMomentum

__all__ = [
    "Ditto",
    "ExampleGroupDro",
    "ExampleJtt",
    "FedProx",
    "GroupWeights",
    "Lesson",
    "LocalMethod",
    "LocalRound",
    "PulledTowards",
    "WorkerMomentum",
    "flagged_by",
    "with_copies",
]
