"""How a line names some of many things."""

from collections.abc import Sequence


def named(things: Sequence[str], most: int) -> str:
    """Name the first of some things, and count the others."""
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return ", ".join(things[:most]) + more
