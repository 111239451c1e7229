"""What a function's docstring says, section by section."""

import inspect
import re
from collections.abc import Callable

HEADING = re.compile(r"^([A-Z][a-z]+):\n", re.MULTILINE)
ENTRY = re.compile(r"^(?: {4})(\w+): ", re.MULTILINE)
ROLE = re.compile(r":\w+:(?=`)")


def sections(function: Callable[..., object]) -> dict[str, str]:
    """Return a docstring's sections by their headings; what comes before the first under ``""``."""
    parts = _split(_text(function), HEADING)
    return {heading: _joined(text) for heading, text in parts.items()}


def entries(function: Callable[..., object], heading: str) -> dict[str, str]:
    """Return what a section such as Args says of each name; empty without such a section."""
    section = _split(_text(function), HEADING).get(heading, "")
    return {name: _joined(text) for name, text in _split(section, ENTRY).items() if name}


def _split(text: str, heading: re.Pattern[str]) -> dict[str, str]:
    before, *rest = heading.split(text)
    return {"": before, **dict(zip(rest[::2], rest[1::2], strict=True))}


def _text(function: Callable[..., object]) -> str:
    """Return the docstring with its references to other functions as plain code."""
    return ROLE.sub("", inspect.getdoc(function) or "").replace("``", "`")


def _joined(text: str) -> str:
    """Join the lines of each paragraph."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
