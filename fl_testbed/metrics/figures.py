"""Figures as summaries hold them."""

import math


def finite_or_none(value: float) -> float | None:
    """Return a figure as JSON can hold it: None where it is undefined or was driven to infinity."""
    return float(value) if math.isfinite(value) else None
