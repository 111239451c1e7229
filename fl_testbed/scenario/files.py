"""What to say of files that are not there."""

import difflib
import os
from pathlib import Path

MOST_NAMED = 12


def beside(path: Path, pattern: str) -> str:
    """Return a text that names the files of a kind where one was looked for; empty without any."""
    folder = path if os.path.isdir(path) else path.parent  # False of a name that no file can have
    others = sorted(p.name for p in folder.glob(pattern)) if os.path.isdir(folder) else []
    near = difflib.get_close_matches(path.name, others, cutoff=0.8)
    named = near if near and len(others) > MOST_NAMED else others[:MOST_NAMED]
    more = f" and {len(others) - len(named)} more" if len(others) > len(named) else ""
    return f"; {folder} holds {', '.join(named)}{more}" if others else ""
