"""Where updates point, which explains results of other pages.

    python -m experiments.oil_and_water_federated.directions.measure

runs three methods with every update kept (3 GB in all), and writes ``results.csv``: a row per run,
with means over rounds. The pages that show them have their own tables.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from clients.shard import Role
from experiments import pages
from experiments.oil_and_water_federated import runs
from fl_testbed import api
from fl_testbed.engine.recorded_updates import Recorded
from fl_testbed.report.results import finished_runs
from fl_testbed.scenario import load_scenarios
from strategies.aggregation.aggregate import norms_of
from strategies.aggregation.distances import cosines, cosines_with

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
N_TRIMMED = 4  # at either end of each coordinate, as trimming_adult.yaml tells the rule
Rows = NDArray[np.float32]
"""Of updates, (clients of one role, parameters)."""
Updates = dict[Role, Rows]


def main() -> None:
    """Run, measure and write the result file."""
    out = pages.parser(__doc__).parse_args().out
    files = sorted(HERE.glob("*_*.yaml"))
    api.run(files, out=out, resume=True)
    rows = []
    for file in files:
        of_round = MEASURED[file.stem.partition("_")[0]]
        for _, run in finished_runs(load_scenarios(file), out):
            found = pd.DataFrame(of_round(n, own) for n, own in enumerate(rounds(run.folder), 1))
            named = {"scenario": file.stem, "variant": run.variant, "seed": run.seed}
            rows.append(named | found.mean().to_dict())
    pages.keep(RESULTS, pd.DataFrame(rows))


def rounds(folder: Path) -> Iterator[Updates]:
    """Yield the updates of each round of a run by role."""
    roles = pd.read_csv(folder / "clients.csv").groupby("client")["role"].first()
    for file in sorted(folder.glob("updates/*")):
        sent = Recorded(file).updates()
        yield {
            role: np.stack([row for client, row in sent.items() if roles[client] == role.value])
            for role in Role
        }


def of_mimics(_: int, updates: Updates) -> dict[str, float]:
    """Return the cosine of what mimics add to the minority's mean (the part that their poison has)
    with the way from the majority's mean to the minority's; and the length of that way, over the
    mean distance of a minority client from the mean of the others."""
    minority = updates[Role.HONEST_MINORITY]
    middle, n = minority.mean(0), len(minority)
    way, poison = middle - updates[Role.HONEST_MAJORITY].mean(0), updates[Role.POISONED] - middle
    apart = np.linalg.norm(minority - middle, axis=1).mean() * n / (n - 1)
    rows = torch.from_numpy(poison)
    cosine = cosines_with(rows, torch.from_numpy(way), norms_of(rows)).mean().item()
    return {"cosine": cosine, "distance": np.linalg.norm(way) / apart}


def of_agreement(round_: int, updates: Updates) -> dict[str, float]:
    """Return the mean cosine of two majority clients, in the first and in the last five rounds."""
    rows = updates[Role.HONEST_MAJORITY]
    pairs = cosines(torch.from_numpy(rows)).numpy()[np.triu_indices(len(rows), 1)]
    name = "agreement_first" if round_ <= 5 else "agreement_last" if round_ > 25 else "between"
    return {name: pairs.mean()}


def of_trimming(_: int, updates: Updates) -> dict[str, float]:
    """Return, where the minority's mean differs from the majority's, how often the attackers' mean
    lies on the same side, and which share of the minority's and of attackers' values a trimmed mean
    keeps; and of the attackers', where their own mean differs. Coordinates weigh as the squared
    difference."""
    majority, minority, attackers = (
        updates[r] for r in (Role.HONEST_MAJORITY, Role.HONEST_MINORITY, Role.POISONED)
    )
    ranks = np.concatenate([minority, attackers, majority]).argsort(0, "stable").argsort(0)
    kept = (ranks >= N_TRIMMED) & (ranks < len(ranks) - N_TRIMMED)
    of_minority, of_attackers = np.split(kept[: len(minority) + len(attackers)], [len(minority)])
    theirs, others = minority.mean(0) - majority.mean(0), attackers.mean(0) - majority.mean(0)
    return {
        "same_side": np.average(theirs * others > 0, weights=theirs**2),
        "minority_kept": np.average(of_minority.mean(0), weights=theirs**2),
        "attackers_kept": np.average(of_attackers.mean(0), weights=theirs**2),
        "attackers_own_kept": np.average(of_attackers.mean(0), weights=others**2),
    }


def shown(
    name: str,
    lines: Mapping[tuple[str, str], str],
    columns: Mapping[str, str],
    results: Path,
    digits: int = 0,
) -> dict[str, pages.Rows]:
    """Return a table of the result file for a page: means over seeds (lowest to highest).

    Args:
        name: The table's.
        lines: Names of rows by scenario and variant.
        columns: Headings by figure.
        results: The folder of the page's results. A quick look has none of these, and no table.
        digits: Of the figures; those without are percentages.
    """
    if results != runs.HERE:
        return {}
    rows = pd.read_csv(RESULTS)

    def cell(of: tuple[str, str], column: str) -> str:
        scenario, variant = of
        own = pages.where(rows, scenario=scenario, variant=variant)[column]
        return pages.mean_range(own if digits else 100 * own, digits)

    return {name: pages.crossed("", lines, columns, cell)}


MEASURED: dict[str, Callable[[int, Updates], dict[str, float]]] = {
    "mimics": of_mimics,
    "agreement": of_agreement,
    "trimming": of_trimming,
}

if __name__ == "__main__":
    main()
