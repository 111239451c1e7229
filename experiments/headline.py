"""The README's first table, from the results of experiments/oil_and_water_federated."""

from pathlib import Path

import pandas as pd

from experiments import pages
from experiments.oil_and_water_federated import runs
from experiments.oil_and_water_federated.combinations.table import methods

PAGE = Path(__file__).parents[1] / "README.md"
METHODS = {
    ("none", "mean"): "no defence, no lift",
    ("none", "krum"): "Krum",
    ("none", "multi_krum"): "Multi-Krum",
    ("none", "coordinate_median"): "coordinate median",
    ("none", "fltrust"): "FLTrust",
    ("none", "norm_clipping"): "clipping to the median norm",
    ("jtt", "mean"): "JTT, told to flag six",
    ("jtt_told_4", "mean"): "JTT, told to flag four",
    ("agnostic", "mean"): "agnostic lift",
    ("fedmgda_plus", "mean"): "FedMGDA+",
    ("jtt", "norm_clipping"): "JTT and clipping",
    ("jtt", "coordinate_median"): "JTT and median",
    ("agnostic", "multi_krum"): "agnostic lift and Multi-Krum",
    ("fedmgda_plus", "norm_clipping"): "FedMGDA+ and clipping",
    ("jtt_ideal", "mean"): "JTT told the minority †",
}
"""Lift and defence."""


def rows() -> pd.DataFrame:
    """Return all runs of lifts and rules against the federations' own backdoors, and those of JTT
    told to flag four."""
    told = pages.where(runs.kept("sensitivity", runs.HERE), point="base", variant="jtt_told_4")
    return pd.concat([methods(runs.HERE), told.assign(lift=told["variant"], defence="mean")])


def tables() -> dict[str, pages.Rows]:
    """Return the table of the page."""
    shown = rows()
    heads = {"worst_group": "worst group", "attack_success": "ASR"}
    heads["weights"] = "weight minority / attackers"

    def cell(method: tuple[str, str], at: tuple[str, str]) -> str:
        own = pages.where(shown, lift=method[0], defence=method[1], federation=at[0])
        if at[1] == "weights":
            return runs.weights(own)
        # An ASR may have two peaks, and an interval then reaches below 0 or above 100.
        of = pages.mean_range if at[1] == "attack_success" else pages.mean_pm
        return of(own[at[1]])

    columns = runs.in_each(shown, heads, runs.SUFFERING)
    return {"headline": pages.crossed("", METHODS, columns, cell)}
