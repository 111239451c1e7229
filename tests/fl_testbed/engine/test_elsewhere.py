"""Whole runs on a device that is not the CPU, pretended: they end as runs on the CPU do."""

import pandas as pd
import pytest
from pretended_device import ELSEWHERE, PretendedDevice, Read

from clients.device_memory import HostMemory
from fl_testbed.engine import assembly, federated, rounds
from fl_testbed.engine.datasets import load_dataset
from fl_testbed.engine.rounds import COLUMNS
from fl_testbed.scenario import Scenario

BACKDOOR = {
    "kind": "dirty_label_backdoor",
    "trigger": {"kind": "patch", "size": 2},
    "target": 0,
    "fraction": 0.5,
}
ADAPTIVE = {**BACKDOOR, "kind": "adaptive_backdoor", "epochs": 2, "adaptation_epochs": 1}
N_ROUNDS = 2
N_PARAMETERS = 64 * 8 + 8 + 8 * 10 + 10
COUNTS = {"honest_majority": 8, "honest_minority": 2, "poisoned": 2, "examples_each": 20}


def scenario(strategy=None, **keys) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "elsewhere",
            "rounds": N_ROUNDS,
            "dataset": {"kind": "digits", "minority": {"kind": "inverted"}},
            "model": {"kind": "mlp", "hidden": [8]},
            "clients": COUNTS,
            "training": {"lr": 0.1, "batch_size": 10, "cohort": 64},
            "server_data": {"n_examples": 20, "minority_fraction": 0.5},
            "strategy": {"aggregation": {"kind": "mean"}} | (strategy or {}),
        }
        | keys
    )


def by_rule(kind: str, **parameters) -> dict[str, object]:
    return {"aggregation": {"kind": kind} | parameters}


MULTI_KRUM = by_rule("multi_krum", n_malicious=2)
MIXED = {"pre_aggregation": [{"kind": "nearest_neighbour_mixing", "n_malicious": 2}]}
JTT = {"kind": "jtt", "n_flagged": 3, "factor": 5, "warm_up_rounds": 1}
KINDS = {
    "attacks": [
        {"count": 1, "attack": {"kind": "gaussian", "std": 0.1}},
        {"count": 2, "attack": {"kind": "alie", "knowledge": "colluding"}},
        {"count": 1, "attack": {"kind": "min_max"}},
    ],
    "poisons": [
        {"count": 1, "attack": {"kind": "mimic"}},  # which remembers
        {"count": 1, "attack": {"kind": "poisonedfl", "window": 1}},  # which does too
        {"count": 1, "poison": ADAPTIVE},
        {"count": 2, "poison": BACKDOOR, "attack": {"kind": "model_replacement"}},  # clean twins
        {"count": 1, "poison": BACKDOOR, "attack": {"kind": "minority_mimic"}},
        {"count": 1, "poison": BACKDOOR, "training_attack": {"kind": "pgd", "radius": 0.5}},
        {"count": 1, "poison": BACKDOOR, "training_attack": {"kind": "neurotoxin"}},
    ],
}
SCENARIOS = {
    "one_by_one": scenario(training={"lr": 0.1, "batch_size": 10, "cohort": 1}),
    "convolutions": scenario(model={"kind": "cnn"}),
    "fltrust": scenario(by_rule("fltrust")),
    "sampled": scenario(by_rule("fldetector", window=1), sampling={"fraction": 0.6}, rounds=3),
    "deepsight": scenario(by_rule("deepsight")),
    "rejection": scenario(by_rule("union_rejection", n_malicious=2)),
    "measured": scenario(by_rule("k_loss", n_malicious=2) | {"losses": "measured"}),
    "lifted": scenario({"reweighting": JTT, "order": "lift_then_filter"} | MULTI_KRUM),
    "ideal": scenario(MULTI_KRUM | {"oracle": {"removing": "ideal"}}),
    "shielded": scenario(MULTI_KRUM | {"oracle": {"removing": "shielded"}} | MIXED),
    "forewarned": scenario(by_rule("flame"), attack={"kind": "tailored"}),
    "attacks": scenario(attackers=KINDS["attacks"], clients=COUNTS | {"poisoned": 4}),
    "poisons": scenario(attackers=KINDS["poisons"], clients=COUNTS | {"poisoned": 8}),
    "personal": scenario(local_method={"kind": "ditto", "pull": 1.0}),
    "group_dro": scenario(local_method={"kind": "example_group_dro", "step_size": 0.1}),
    "worker_momentum": scenario(by_rule("flare"), local_method={"kind": "worker_momentum"}),
}


@pytest.fixture
def elsewhere(monkeypatch):
    """Put clients and server on the pretended device, which is handed out."""
    memory = HostMemory(lambda: 2**30)
    memory.device = ELSEWHERE
    monkeypatch.setattr(federated, "training_memory", lambda engine: memory)
    monkeypatch.setattr(rounds, "server_device", lambda scenario, dataset: (ELSEWHERE, None))
    monkeypatch.setattr(assembly, "cache_bytes", lambda device: 2**30)
    return PretendedDevice()


def clients_of(made: Scenario) -> pd.DataFrame:
    records = federated.records(load_dataset(made, None), made, -1, None)
    rows = [row for record in records for row in record.tables["clients.csv"]]
    return pd.DataFrame(rows, columns=list(COLUMNS["clients.csv"]))


def n_updates_read(reads: list[Read]) -> int:
    """Return how many updates came to the host, alone or as a matrix."""
    return sum(read.size // N_PARAMETERS for read in reads if read.size % N_PARAMETERS == 0)


@pytest.mark.filterwarnings("ignore:.*to a meta parameter:UserWarning")  # it holds numbers
@pytest.mark.parametrize("name", SCENARIOS)
def test_runs_end_as_on_the_cpu(name, request):
    expected = clients_of(SCENARIOS[name])
    assert set(expected["status"]) == {"ok"}
    with (device := request.getfixturevalue("elsewhere")):
        clients = clients_of(SCENARIOS[name])
    pd.testing.assert_frame_equal(clients, expected, rtol=1e-2, atol=1e-4)
    if name in ("attacks", "forewarned"):
        # No update comes to the host, though attackers look at them: one step each.
        assert n_updates_read(device.reads) == N_ROUNDS


@pytest.mark.filterwarnings("ignore:.*to a meta parameter:UserWarning")
@pytest.mark.parametrize("rule", ["mean", "multi_krum", "coordinate_median"])
def test_the_host_waits_no_longer_for_more_clients(rule, elsewhere):
    def reads(n_honest: int) -> int:
        elsewhere.reads.clear()
        with elsewhere:
            strategy = MULTI_KRUM if rule == "multi_krum" else by_rule(rule)
            clients_of(scenario(strategy, clients=COUNTS | {"honest_majority": n_honest}))
        assert n_updates_read(elsewhere.reads) == N_ROUNDS
        return len(elsewhere.reads)

    assert reads(8) == reads(16)
