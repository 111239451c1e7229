"""What is installed where a run computes: the same installation gives the same bytes."""

import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path

import clients
import fl_testbed
import strategies

PACKAGES = (
    *("fl-testbed", "flwr", "ray", "torch", "numpy"),
    *("scipy", "scikit-learn"),  # some rules call them
)
CODE = "code of this repository"


class OtherInstallationError(RuntimeError):
    """A node of the cluster has other versions than the command: its results would differ."""


def versions() -> dict[str, str | None]:
    """Return the versions of the packages that results depend on; None where one is missing."""
    return {name: _version(name) for name in PACKAGES}


def installation() -> dict[str, str | None]:
    """Return all that has to be the same on every node."""
    code = sha256()
    for package in (fl_testbed, clients, strategies):
        folder = Path(package.__path__[0])
        for file in sorted(folder.rglob("*.py")):
            code.update(file.relative_to(folder).as_posix().encode())
            code.update(file.read_bytes())
    return {"Python": platform.python_version(), **versions(), CODE: code.hexdigest()[:8]}


def check_same(wanted: Mapping[str, str | None]) -> None:
    """Raise an OtherInstallationError unless what is wanted is installed here."""
    own = installation()
    apart = [
        f"its {what} is {own[what]}, that of the command {wanted[what]}"
        for what in own
        if own[what] != wanted[what]
    ]
    if apart:
        raise OtherInstallationError("; ".join(apart))


@cache  # every run of a sweep asks
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
