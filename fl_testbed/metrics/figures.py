"""Figures as summaries hold them."""

import math
from collections.abc import Mapping
from typing import Any


def finite_or_none(figures: Mapping[Any, float]) -> dict[str, float | None]:
    """Return figures by name as JSON can hold them: None where one is undefined or was driven to
    infinity."""
    return {str(k): float(value) if math.isfinite(value) else None for k, value in figures.items()}
