"""What ``validate`` shows of federated scenarios."""

from collections.abc import Sequence

import numpy as np
from rich.table import Column, Table

from clients.shard import HONEST, Role
from fl_testbed.data import Dataset
from fl_testbed.data.groups import shown_name
from fl_testbed.engine.assembly import build_federation
from fl_testbed.engine.datasets import DatasetCache
from fl_testbed.engine.memory import server_memory
from fl_testbed.engine.recorded_updates import recorded_bytes
from fl_testbed.scenario import Scenario
from fl_testbed.scenario.loading import by_variant
from fl_testbed.scenario.naming import named

N_NAMED = 20  # classes or columns, at most


def variant_table(scenarios: list[Scenario], datasets: DatasetCache) -> Table:
    """Return the variants with their seeds and sizes, and the memory and disk that they need."""
    headings = ["seeds", "rounds", "clients", "sampled", "parameters", "server\nmemory"]
    if records := any(scenario.record_updates for scenario in scenarios):
        headings.append("updates\non disk")
    right = (Column(heading, justify="right", overflow="fold") for heading in headings)
    table = Table(Column("variant", overflow="fold"), *right, title_justify="left")
    if any(scenario.strategy.asks_how_many for scenario in scenarios):
        table.add_column("told by oracle", justify="right", overflow="fold")
    for variant, own in by_variant(scenarios).items():
        first = own[0]
        n_parameters, memory = server_memory(first, datasets.get(first))
        recorded = len(own) * recorded_bytes(first, n_parameters)
        counts = (first.rounds, len(first.clients.population), first.n_sampled, n_parameters)
        table.add_row(
            variant,
            ", ".join(str(scenario.seed) for scenario in own),
            *(f"{count:,}" for count in counts),
            f"{memory / 2**20:,.1f} MiB",
            *([f"{recorded / 2**20:,.1f} MiB" if recorded else "–"] if records else []),
            *([] if first.n_told is None else [f"{first.n_told:,}"]),
        )
    return table


def group_table(scenario: Scenario, dataset: Dataset) -> Table:
    """Return who holds how many examples of each group."""
    split = scenario.evaluation.split
    federation = build_federation(scenario, dataset)
    honest = federation.group_counts(*HONEST)
    counts = [federation.group_counts(role) for role in Role]
    counts.append(federation.tested_counts(split, scenario.evaluation.max_examples))
    counted = ("share", "majority", "minority", "poisoned", split)
    table = Table(
        "group",
        *(Column(heading, justify="right") for heading in counted),
        title=f"examples by group and holder ({scenario.variant}, seed {scenario.seed})",
        title_justify="left",
        caption="share: the group's part of the honest clients' examples"
        f"{_numbered(dataset.classes)}\n{_inputs(list(dataset.features))}"
        f"fingerprint of the data: {dataset.fingerprint}",
        caption_justify="left",
    )
    for group, name in enumerate(federation.group_names):
        shown = shown_name(name, is_minority=group in federation.groups.minority)
        share = f"{honest[group] / max(1, honest.sum()):.1%}"
        table.add_row(shown, share, *(f"{count[group]:,}" for count in counts))
    if not scenario.clients.overlap:  # else there may be millions of clients, all alike in size
        held = federation.holdings().sum(dim=1).numpy()
        sizes = [held[list(federation.population.clients(role))] for role in Role]
        table.add_section()
        table.add_row("one client", "", *map(_range, sizes), "")
    return table


def _range(sizes: np.ndarray) -> str:
    if not len(sizes):
        return "–"
    low, high = sizes.min(), sizes.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _numbered(classes: Sequence[str]) -> str:
    """Return the numbers by which poisons refer to classes, if classes have names."""
    numbered = [f"{number} {name}" for number, name in enumerate(classes) if name != str(number)]
    return f"\nclasses: {named(numbered, N_NAMED)}" * bool(numbered)


def _inputs(columns: Sequence[str]) -> str:
    """Return the input columns of tabular data, as a check: a row number may be among them."""
    return f"inputs: {named(columns, N_NAMED)}\n" * bool(columns)
