"""Writes the table of the top page from the results of experiments/oil_and_water_federated.

python -m experiments.headline
"""

from pathlib import Path

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
    ("jtt", "mean"): "JTT over clients",
    ("agnostic", "mean"): "agnostic lift",
    ("fedmgda_plus", "mean"): "FedMGDA+",
    ("jtt", "norm_clipping"): "JTT and clipping",
    ("jtt", "coordinate_median"): "JTT and median",
    ("agnostic", "multi_krum"): "agnostic lift and Multi-Krum",
    ("fedmgda_plus", "norm_clipping"): "FedMGDA+ and clipping",
    ("jtt_ideal", "mean"): "JTT told the minority †",
}
"""Lift and defence."""
FEDERATIONS = ("fashion_mnist", "adult")


def tables() -> dict[str, str]:
    """Return the table of the page."""
    rows = methods(runs.HERE)
    heads = ("worst group", "ASR", "weight minority / attackers")
    lines = [["", *(f"{runs.FEDERATIONS[name]}: {head}" for name in FEDERATIONS for head in heads)]]
    for (lift, defence), label in METHODS.items():
        cells = []
        for name in FEDERATIONS:
            own = rows[(rows["lift"] == lift) & (rows["defence"] == defence)]
            own = own[own["federation"] == name]
            cells += [pages.mean_pm(own["worst_group"]), pages.mean_pm(own["attack_success"])]
            cells.append(runs.weights(own))
        lines.append([label, *cells])
    return {"headline": pages.markdown(lines)}


if __name__ == "__main__":
    pages.write(PAGE, tables())
