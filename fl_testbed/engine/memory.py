"""How much memory a run takes, known before it starts."""

from collections.abc import Sequence
from math import inf, prod

import torch

from clients.attacks import Knowledge
from fl_testbed.data import Dataset
from fl_testbed.engine.datasets import DatasetCache, by_dataset, check_each
from fl_testbed.engine.free_memory import free_memory
from fl_testbed.engine.models import buffers_of, outlined_model
from fl_testbed.scenario import Fault, Scenario, ScenarioError
from fl_testbed.scenario.flower_strategy import FlowerStrategySpec
from strategies.pipeline import Pipeline
from strategies.running_sum import server_bytes
from strategies.shapes import CPU

SHARE_OF_FREE = 0.8  # of the memory that is available now


def server_memory(
    scenario: Scenario, dataset: Dataset, device: torch.device = CPU
) -> tuple[int, int]:
    """Return the number of parameters d, and the bytes of a round that the server keeps on the
    device.

    Attackers who look at updates keep copies of them: a second matrix if they see all.
    """
    model = outlined_model(scenario, dataset)
    d = sum(p.numel() for p in model.parameters())
    spec, n = scenario.told_strategy, scenario.n_sampled
    if isinstance(spec, FlowerStrategySpec):  # the updates, and its own copy of the replies
        return d, 8 * n * d + 4 * d * n_looked_at(scenario)
    lift = spec.reweighting.build(scenario.training.build(), lambda: torch.empty(0, 0))
    mixers, oracle = spec.build_pre_aggregation(n), spec.oracle.build(scenario.clients.population)
    pipeline = Pipeline(spec.aggregation.build(n), lift, spec.order, mixers, oracle)
    n_copies = n_looked_at(scenario)
    if scenario.record_updates is not None:
        n_copies += 3 * n  # replies as they came, rows of the file, the file itself
    if scenario.local_method is not None and scenario.local_method.keeps_parameters:
        n_copies += len(scenario.clients.population)
    if pipeline.remembers_updates and device.type == "cpu":
        n_copies += n  # a checkpoint is copied twice, once memory from before the round is freed
    keep_mib = inf if buffers_of(model) else spec.keep_mib  # no running sums with buffers
    inputs = 4 * spec.aggregation.n_inputs * prod(dataset.input_shape)
    return d, server_bytes(pipeline, n, d, device, keep_mib) + 4 * d * n_copies + inputs


def n_looked_at(scenario: Scenario) -> int:
    """Return how many copies of updates, of d numbers each, attackers keep in a round."""
    kinds = [kind for kind in scenario.attacker_kinds if kind.count]
    twins = sum(kind.count for kind in kinds if kind.attack.needs_twin)
    knowledge = {kind.attack.seen for kind in kinds}
    if Knowledge.OMNISCIENT in knowledge:
        return scenario.n_sampled + twins
    colluding = sum(kind.count for kind in kinds if kind.attack.seen is Knowledge.COLLUDING)
    return min(colluding, scenario.n_sampled) + twins


def check_memory(scenarios: Sequence[Scenario], datasets: DatasetCache) -> None:
    """Refuse runs that do not fit into free memory.

    Raises:
        ScenarioError: With a fault for each of them.
    """
    available = free_memory()

    def check(scenario: Scenario) -> None:
        d, needed = server_memory(scenario, datasets.get(scenario))
        if needed > SHARE_OF_FREE * available:
            more = ", and what is made of them," if needed > 4 * scenario.n_sampled * d else ""
            text = (
                f"the updates of {scenario.n_sampled:,} clients × {d:,} parameters{more} take "
                f"{needed / 2**30:,.1f} GiB, but {available / 2**30:,.1f} GiB are free: lower "
                "sampling.fraction or use a smaller model"
            )
            raise ScenarioError(Fault.of(scenario, "sampling.fraction", text))

    check_each(_one_of_each_variant(scenarios), check)


def fits_side_by_side(
    scenarios: Sequence[Scenario], datasets: DatasetCache, n_workers: int
) -> bool:
    """Whether that many runs fit into free memory at once."""
    each = _one_of_each_variant(scenarios)
    largest = max(server_memory(scenario, datasets.get(scenario))[1] for scenario in each)
    return n_workers * largest < SHARE_OF_FREE * free_memory() / 2


def _one_of_each_variant(scenarios: Sequence[Scenario]) -> list[Scenario]:
    """Keep one seed of each variant, as all cost the same: the last, whose dataset is in memory."""
    return list({(s.name, s.variant): s for s in by_dataset(scenarios)}.values())
