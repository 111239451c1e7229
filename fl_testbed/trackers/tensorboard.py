"""Runs in TensorBoard: an event file in each run folder, for ``tensorboard --logdir``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch.utils.tensorboard.writer import SummaryWriter

from fl_testbed.report.results import numbers
from fl_testbed.scenario import AnyScenario
from fl_testbed.trackers import finite, round_figures

EVENTS = "events.out.tfevents.*"


class TensorBoardRun:
    """One run's event file. It is in the run's folder, so that TensorBoard shows the run's name."""

    def __init__(self, scenario: AnyScenario, folder: Path, done: int) -> None:
        if done < 0:
            for stale in folder.glob(EVENTS):
                stale.unlink()
        self._last = scenario.rounds
        self._writer = SummaryWriter(str(folder), purge_step=done + 1)
        self._writer.add_text("scenario", f"```yaml\n{scenario.to_yaml()}```", max(done, 0))

    def round(self, round_: int, tables: Mapping[str, pd.DataFrame]) -> None:
        """Write a round's figures to disk at once, so that TensorBoard shows them."""
        self._write(round_figures(tables), round_)

    def done(self, summary: Mapping[str, Any]) -> None:
        """Write the summary's numbers beside the last round's."""
        values = {f"summary/{key}": value for key, value in numbers(summary).items()}
        self._write(finite(values), self._last)
        self._writer.close()

    def failed(self, reason: str) -> None:
        """Write why the run failed."""
        self._writer.add_text("failure", reason)
        self._writer.close()

    def _write(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
