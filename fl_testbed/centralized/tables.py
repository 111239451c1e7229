"""What ``validate`` shows of scenarios on pooled data."""

import torch
from rich.table import Column, Table

from fl_testbed.centralized.experiment import check_poison
from fl_testbed.centralized.preparation import prepare
from fl_testbed.data import Dataset
from fl_testbed.data.groups import shown_name
from fl_testbed.scenario import CentralizedScenario
from fl_testbed.scenario.loading import by_variant


def variant_table(scenarios: list[CentralizedScenario]) -> Table:
    """Return the variants with their stages and seeds."""
    variant = Column("variant", overflow="fold")
    table = Table(variant, "seeds", "stages", "poison", title_justify="left")
    for name, own in by_variant(scenarios).items():
        seeds = ", ".join(str(scenario.seed) for scenario in own)
        stages = " → ".join(stage.kind for stage in own[0].stages) or "ERM"
        table.add_row(name, seeds, stages, own[0].poison.kind)
    return table


def group_table(scenario: CentralizedScenario, dataset: Dataset) -> Table:
    """Return how many training examples there are of each label × attribute × poisoned.

    Poisons that take a training to make are not counted.
    """
    material = prepare(scenario, dataset)
    made = check_poison(material)
    pool = material.poisoned if made else material.clean
    names = material.groups.names
    tested = torch.bincount(material.test.groups, minlength=len(names))
    table = Table(
        "group",
        *(Column(heading, justify="right") for heading in ("share", "clean", "poisoned", "test")),
        title=f"training examples by group ({scenario.variant}, seed {scenario.seed})",
        caption="poisoned: examples in the group of the label that they were given\n"
        f"fingerprint of the data: {dataset.fingerprint}",
        title_justify="left",
        caption_justify="left",
    )
    for group, name in enumerate(names):
        clean = int((~pool.is_poisoned & (pool.groups == group)).sum())
        poisoned = int((pool.is_poisoned & (pool.annotated == group)).sum())
        shown = shown_name(name, is_minority=group in material.groups.minority)
        share = f"{clean / len(pool):.1%}"
        counts = (f"{clean:,}", f"{poisoned:,}" if made else "?", f"{int(tested[group]):,}")
        table.add_row(shown, share, *counts)
    return table
