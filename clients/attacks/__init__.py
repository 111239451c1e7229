"""Attacks on the update a client sends: pure functions on updates, and hooks on training steps."""

from clients.attacks.alie import alie, alie_z
from clients.attacks.fang_krum import fang_krum, fang_krum_partial
from clients.attacks.fang_trimmed_mean import fang_trimmed_mean, fang_trimmed_mean_partial
from clients.attacks.forged import FACTS, UNTOLD, Attack, Defence, Forged, Knowledge, Schedule
from clients.attacks.gaussian import gaussian
from clients.attacks.inner_product import inner_product
from clients.attacks.mimic import mimic
from clients.attacks.min_max import min_max
from clients.attacks.min_sum import min_sum
from clients.attacks.minority_mimic import minority_mimic
from clients.attacks.model_replacement import model_replacement
from clients.attacks.neurotoxin import Neurotoxin
from clients.attacks.perturbation import Halving
from clients.attacks.pgd import ProjectedDescent
from clients.attacks.poisonedfl import poisonedfl
from clients.attacks.sign_flip import sign_flip
from clients.attacks.tailored import tailored
from clients.attacks.training_attack import TrainingAttack

__all__ = [
    "FACTS",
    "UNTOLD",
    "Attack",
    "Defence",
    "Forged",
    "Halving",
    "Knowledge",
    "Neurotoxin",
    "ProjectedDescent",
    "Schedule",
    "TrainingAttack",
    "alie",
    "alie_z",
    "fang_krum",
    "fang_krum_partial",
    "fang_trimmed_mean",
    "fang_trimmed_mean_partial",
    "gaussian",
    "inner_product",
    "mimic",
    "min_max",
    "min_sum",
    "minority_mimic",
    "model_replacement",
    "poisonedfl",
    "sign_flip",
    "tailored",
]
