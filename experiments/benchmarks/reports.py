"""What it costs to look at many runs: a report's size, the time to open it, and a comparison's.

fl-testbed run configs/defence_by_attack.yaml
python experiments/benchmarks/reports.py runs/defence_by_attack
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import report
from playwright.sync_api import sync_playwright

from fl_testbed.report.results import Status, find_runs
from fl_testbed.scenario.places import place_of_run

COMMAND = [sys.executable, "-c", "from fl_testbed.cli import main; main()"]
REPEATS = 5
REPORTED, COMPARED = 200, 1_000  # runs
PAINTED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def seconds(what: Callable[[], object]) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def command(*arguments: object) -> float:
    """Return the seconds that a command takes, from start to end."""
    call = [*COMMAND, *map(str, arguments)]
    return seconds(lambda: subprocess.run(call, check=True, capture_output=True))


def copies(sweep: Path, n: int, out: Path) -> Path:
    """Make a sweep of n runs out of copies of another sweep's, which differ only in their names."""
    done = [run for run in find_runs([sweep]) if run.status is Status.DONE]
    for number in range(n):
        run = done[number % len(done)]
        variant = f"{run.variant}-{number // len(done)}"
        folder = place_of_run(out / sweep.name, variant, run.seed)
        shutil.copytree(run.folder, folder, copy_function=os.link)
        summary = json.loads((folder / "summary.json").read_text()) | {"variant": variant}
        (folder / "summary.json").unlink()  # so far a link to the original
        (folder / "summary.json").write_text(json.dumps(summary))
    return out / sweep.name


def opening(page_file: Path) -> float:
    """Return the median time until a page is loaded and painted, in a browser already running."""
    with sync_playwright() as driver:
        path = shutil.which("chromium") or driver.chromium.executable_path
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])

        def once() -> float:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            return seconds(
                lambda: (page.goto(page_file.resolve().as_uri()), page.evaluate(PAINTED))
            )

        times = [once() for _ in range(REPEATS)]
        browser.close()
    return statistics.median(times)


def main() -> None:
    sweep = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=sweep.parent) as folder:
        few = copies(sweep, REPORTED, Path(folder) / "few")
        writing = command("report", few)
        page = few / "report.html"
        figures = {
            "size of report.html": (page.stat().st_size / 1e6, "MB"),
            "report.html opened": (opening(page), "s"),
            "fl-testbed report": (writing, "s"),
        }
        report("reports", f"{REPORTED} runs", figures)
        many = copies(sweep, COMPARED, Path(folder) / "many")
        comparing = statistics.median(command("compare", many) for _ in range(REPEATS))
    report("reports", f"{COMPARED} run folders", {"fl-testbed compare": (comparing, "s")})


if __name__ == "__main__":
    main()
