"""How a one-line message names some of many things."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

MOST_FILES = 12  # in one line


def named(things: Sequence[str], most: int) -> str:
    """Name the first of some things, and count the others."""
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return ", ".join(things[:most]) + more


def beside(path: Path, pattern: str) -> str:
    """Return a text that lists the files matching a pattern where one was looked for, those with
    similar names first; empty if there are none."""
    folder = path if os.path.isdir(path) else path.parent  # False for a name that no file can have
    others = sorted(p.name for p in folder.glob(pattern)) if os.path.isdir(folder) else []
    near = difflib.get_close_matches(path.name, others, cutoff=0.8)
    names = list(dict.fromkeys([*near, *others]))
    place = "the current folder" if folder == Path() else folder
    return f"; {place} has {named(names, MOST_FILES)}" if names else ""
