"""Runs the real command, and compares what runs leave behind."""

import contextlib
import importlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from fl_testbed import cli

COMMAND = Path(sys.executable).parent / "fl-testbed"
SAME_BYTES = (
    "clients.csv",
    "accuracies.csv",
    "groups.csv",
    "rounds.csv",
    "summary.json",
    "model.safetensors",
)

SCENARIO = """
name: small
rounds: 4
dataset: {kind: digits}
model: {kind: mlp, hidden: [16]}
clients: {honest_majority: 8, honest_minority: 2, poisoned: 2, examples_each: 40}
training: {lr: 0.1, batch_size: 10}
poison:
  kind: dirty_label_backdoor
  trigger: {kind: patch, size: 2}
  target: 0
  fraction: 0.5
server_data: {n_examples: 20}
strategy: {aggregation: {kind: mean}}
"""

ATTACKED = (
    SCENARIO.replace("poisoned: 2", "poisoned: 4").replace("name: small", "name: attacked")
    + """
attackers:
  - {count: 1, attack: {kind: mimic, warm_up_rounds: 2}}
  - count: 1
    attack: {kind: gaussian, std: 0.01, convention: add}
    training_attack: {kind: pgd, radius: 2.0, relative: true}
    training: {local_epochs: 2}
  - {count: 2, attack: {kind: minority_mimic}, schedule: {first: 2, every: 2}}
variants:
  plain: {}
  cohort: {training: {cohort: 5}}
"""
)

PATCH_ON_IMPORT = """
import importlib.abc, importlib.util, sys

class Patch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != PATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            patch(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Patch())
"""


def write_scenario(folder: Path, text: str = SCENARIO) -> Path:
    path = folder / "scenario.yaml"
    path.write_text(text)
    return path


def _environment(patches: Path | None) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if k != "FL_TESTBED_DATA"}
    if patches is not None:
        paths = [str(patches), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def start(*arguments: object, cwd: Path, patches: Path | None = None) -> subprocess.Popen[str]:
    """Start the command in its own process group; ``patches`` holds a sitecustomize."""
    return subprocess.Popen(
        [str(COMMAND), *map(str, arguments)],
        cwd=cwd,
        env=_environment(patches),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background jobs, tests among them, are started with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(
    *arguments: object, cwd: Path, patches: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end: in this process, which has imported all it needs, unless it runs
    Flower's engine, which changes what Python does with warnings and logs.

    Its workers are processes of their own; they and this one are patched.
    """
    if "flower" not in arguments:
        return _run_here([str(argument) for argument in arguments], cwd, patches)
    process = start(*arguments, cwd=cwd, patches=patches)
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _run_here(
    arguments: list[str], cwd: Path, patches: Path | None
) -> subprocess.CompletedProcess[str]:
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        patch.object(sys, "argv", [str(COMMAND), *arguments]),
        patch.dict(os.environ, _environment(patches), clear=True),
        _patched(patches),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        cli.main()
    return subprocess.CompletedProcess(
        arguments, end.value.code or 0, out.getvalue(), err.getvalue()
    )


@contextlib.contextmanager
def _patched(patches: Path | None) -> Iterator[None]:
    """Patch this process as the sitecustomize in a folder would, for a while."""
    if patches is None:
        yield
        return
    path = patches / "sitecustomize.py"
    customize: dict[str, Any] = {"__file__": str(path)}
    exec(compile(path.read_text(), path, "exec"), customize)
    sys.meta_path.pop(0)  # what it waits for is here
    module = importlib.import_module(customize["PATCHED"])
    owners = [module, *(owner for owner in vars(module).values() if isinstance(owner, type))]
    before = [(owner, dict(vars(owner))) for owner in owners]
    try:
        customize["patch"](module)
        yield
    finally:
        for owner, values in before:
            for name, value in values.items():
                if vars(owner)[name] is not value:
                    setattr(owner, name, value)


def succeed(*arguments: object, cwd: Path, patches: Path | None = None) -> str:
    done = run(*arguments, cwd=cwd, patches=patches)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def patches(folder: Path, module: str, patch: str) -> Path:
    path = folder / "patches"
    path.mkdir()
    text = f"{patch}\nPATCHED = {module!r}\n{PATCH_ON_IMPORT}"
    (path / "sitecustomize.py").write_text(text)
    return path


def run_folders(out: Path) -> dict[str, Path]:
    return {str(p.parent.relative_to(out)): p.parent for p in sorted(out.rglob("scenario.yaml"))}


def assert_same_results(one: Path, other: Path, names: Sequence[str] = SAME_BYTES) -> None:
    """The two output folders hold the same runs, byte for byte."""
    ones, others = run_folders(one), run_folders(other)
    assert ones.keys() == others.keys() != set()
    for key in ones:
        for name in names:
            first, second = ones[key] / name, others[key] / name
            if name.endswith(".csv"):  # so that a failure shows the rows
                assert first.read_text().splitlines() == second.read_text().splitlines(), name
            assert first.read_bytes() == second.read_bytes(), (key, name)
