"""What to say of files that are not there."""

from pathlib import Path


def beside(path: Path, pattern: str) -> str:
    """Return a text that names the files of a kind where one was looked for; empty without any."""
    folder = path if path.is_dir() else path.parent
    others = sorted(p.name for p in folder.glob(pattern)) if folder.is_dir() else []
    return f"; {folder} holds {', '.join(others)}" if others else ""
