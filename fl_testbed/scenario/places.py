"""Where the runs of a sweep lie: the engine writes them there, and reports look for them."""

import re
from pathlib import Path

PLAN = "sweep.json"
"""Beside the variants: which runs belong to the sweep."""
BESIDE_VARIANTS = (PLAN, "tension.png", "report.html")
REPLAY = "replay="
"""Begins the last part of the name of a variant that is a replay of another."""


def place_of_run(sweep: Path, variant: str, seed: int) -> Path:
    """Return the folder of one of a sweep's runs."""
    return sweep / variant / f"seed-{seed}"


def parts_of(variant: str) -> list[str]:
    """Return a variant's own name, if any, and its swept values, each ``key=value``.

    There may be commas in a name or value.
    """
    return re.split(r",(?=[^,=]+=)", variant)
