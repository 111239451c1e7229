"""Reading the numbers that clients report, which may be anything."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from flwr.app import MetricRecord, RecordDict

from strategies.flower_arrays import UnusableReplyError, records_in

LARGEST_COUNT = 2**53  # a claim beyond it is no count of examples
LARGEST_LOSS = float(np.finfo(np.float32).max)  # so that sums and products of losses stay finite


def metrics_in(content: RecordDict) -> MetricRecord:
    """Return a reply's metrics: the first record of them, an empty one if it has none."""
    return next(iter(records_in(content, MetricRecord).values()), MetricRecord())


def number_in(metrics: MetricRecord, key: str, default: float) -> float:
    """Return a figure that a client reports; the default if it reports none, or no number."""
    value = metrics.get(key, default)
    try:
        return float(value) if isinstance(value, int | float) else default
    except OverflowError:  # an integer beyond every float
        return math.inf


def claimed_examples(metrics: MetricRecord, key: str) -> int:
    """Return the number of examples that a client claims; 0 if it claims none."""
    claimed = number_in(metrics, key, 0.0)
    if not 0 <= claimed <= LARGEST_COUNT:
        raise UnusableReplyError(f"needs {key} >= 0, got {claimed}")
    return int(claimed)


def alike(reports: Sequence[RecordDict], weight: str) -> list[int]:
    """Return the places of the reports that have the most common form."""
    by_form: dict[Hashable, list[int]] = {}
    for place, report in enumerate(reports):
        form = _form_of(report, weight)
        if form is not None:
            by_form.setdefault(form, []).append(place)
    return max(by_form.values(), key=len, default=[])


def _form_of(content: RecordDict, weight: str) -> Hashable:
    """Return which numbers, and how many of each, a client reports; None if they cannot be used."""
    records = records_in(content, MetricRecord)
    if len(records) != 1:
        return None
    ((name, metrics),) = records.items()
    figures = [
        x for value in metrics.values() for x in (value if isinstance(value, list) else [value])
    ]
    finite = all(-LARGEST_LOSS <= x <= LARGEST_LOSS for x in figures)
    if not finite or not 0 < number_in(metrics, weight, 0.0) <= LARGEST_COUNT:
        return None
    sizes = {key: len(value) if isinstance(value, list) else None for key, value in metrics.items()}
    return name, frozenset(sizes.items())
