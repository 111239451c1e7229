"""How much more memory this process may use."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

OWN, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
FILES = {  # of Linux's control groups, version 2 and 1: folder, limit, use, names in memory.stat
    "": ("", "memory.max", "memory.current", ""),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


def free_memory(own: Path = OWN, groups: Path = GROUPS) -> int:
    """Return how many bytes are free: on the machine, or, if that is less, below the limit that a
    scheduler or a container sets this process.

    Args:
        own: The file that names the control groups of this process.
        groups: The folder of all control groups.
    """
    return max(0, min([psutil.virtual_memory().available, *_left_of_limits(own, groups)]))


def _left_of_limits(own: Path, groups: Path) -> Iterator[int]:
    for entry in own.read_text().splitlines() if own.exists() else ():
        _, controller, place = entry.split(":", 2)
        if controller not in FILES:
            continue
        folder, limit, used, prefix = FILES[controller]
        group = groups / folder / place.lstrip("/")
        for around in (group, *group.parents):  # any of them may have a limit
            with suppress(OSError, ValueError):  # there is none, or "max"
                left = int((around / limit).read_text()) - int((around / used).read_text())
                lines = (around / "memory.stat").read_text().splitlines()
                stat = dict(line.split() for line in lines)
                # The page cache counts as used, but is given up when memory is needed.
                kept = (stat.get(f"{prefix}{name}", 0) for name in ("inactive_file", "active_file"))
                yield left + sum(map(int, kept))
