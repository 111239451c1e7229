"""What to say of files that are not there."""

import os
from pathlib import Path


def beside(path: Path, pattern: str) -> str:
    """Return a text that names the files of a kind where one was looked for; empty without any."""
    folder = path if os.path.isdir(path) else path.parent  # False of a name that no file can have
    others = sorted(p.name for p in folder.glob(pattern)) if os.path.isdir(folder) else []
    return f"; {folder} holds {', '.join(others)}" if others else ""
