"""Hand-made run folders."""

import json
from pathlib import Path
from typing import Any


def write_run(
    sweep: Path, variant: str, seed: int, figures: dict[str, Any] | None = None, **top: Any
) -> Path:
    """A finished run with some figures, dotted; an unfinished one without any."""
    folder = sweep / variant / f"seed-{seed}"
    folder.mkdir(parents=True)
    (folder / "scenario.yaml").write_text("name: x\n")
    (folder / "events.log").touch()
    if figures is not None:
        summary: dict[str, Any] = {"name": sweep.name, "variant": variant, "seed": seed, **top}
        for key, value in figures.items():
            node = summary
            *path, last = key.split(".")
            for part in path:
                node = node.setdefault(part, {})
            node[last] = value
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_plan(sweep: Path, *runs: tuple[str, int]) -> None:
    (sweep / "sweep.json").write_text(json.dumps({"command": "", "runs": runs}))
