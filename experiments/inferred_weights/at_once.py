"""Bulyan as Flower implements it: one Multi-Krum chooses all n - 2f clients at once."""

from strategies.aggregation import multi_krum
from strategies.aggregation.coordinates import mean_of_windows


def bulyan(updates, n_malicious, prior):
    n = len(updates)
    chosen = multi_krum(updates, n_malicious, n_selected=n - 2 * n_malicious).weights > 0
    rows = chosen.nonzero().squeeze(1)
    return mean_of_windows(updates, None, n - 4 * n_malicious, prior, rows=rows)
