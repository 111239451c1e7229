"""Which device a run computes on, and how much of it one process may take."""

import os

import torch

from clients.device_memory import CudaMemory, DeviceMemory, HostMemory
from fl_testbed.data import Dataset
from fl_testbed.engine.free_memory import free_memory
from fl_testbed.engine.memory import server_memory
from fl_testbed.scenario import AnyScenario, EngineSpec, Fault, Scenario, ScenarioError
from strategies.shapes import CPU

SHARE_OF_FREE = 0.5  # of a GPU's free memory, for the server's matrix and what rules make of it

_n_sharing = 1  # per process, like the device that Ray gives it


def share_memory(n_sharing: int) -> None:
    """Set how many processes, including this one, share one memory: a GPU's or the machine's."""
    global _n_sharing
    _n_sharing = n_sharing


def check_device(scenario: AnyScenario, n_gpus: int) -> None:
    """Refuse a device that does not exist.

    Args:
        scenario: Any run of the command: all have the same engine.
        n_gpus: How many GPUs there are, here or in the cluster.

    Raises:
        ScenarioError: If there is no GPU of the name that the scenario gives.
    """
    device = scenario.engine.device
    if not device.startswith("cuda"):
        return
    if n_gpus <= int(device.partition(":")[2] or 0):
        text = f"{device} is not there, torch or Ray can use {n_gpus} GPUs: choose auto or cpu"
        raise ScenarioError(Fault.of(scenario, "engine.device", text))


def device_of(engine: EngineSpec) -> torch.device:
    """Return the device that this process computes on; ``auto`` is a GPU where torch sees one."""
    if engine.device == "cpu" or engine.kind == "flower" or not torch.cuda.is_available():
        return CPU
    device = torch.device("cuda:0" if engine.device in ("auto", "cuda") else engine.device)
    _repeatable_cuda()
    return device


def training_memory(engine: EngineSpec) -> DeviceMemory:
    """Return this process's share of the memory of the device that clients train on."""
    limit = None if engine.memory_limit_mib is None else int(engine.memory_limit_mib * 2**20)
    device = device_of(engine)
    if device.type == "cuda":
        return CudaMemory(device, 1 / _n_sharing, limit)
    return HostMemory(lambda: free_memory() // _n_sharing, limit)


def largest_cohort(scenario: Scenario, device: torch.device, n_workers: int = 1) -> int:
    """Return the most clients to train at once: ``auto`` is one on a CPU, and all on a GPU."""
    wanted = scenario.training.cohort
    if wanted != "auto":
        return wanted
    one_by_one = device.type == "cpu" or scenario.draws_while_training
    return 1 if one_by_one else -(-scenario.n_sampled // n_workers)


def server_device(scenario: Scenario, dataset: Dataset) -> tuple[torch.device, str | None]:
    """Return the device on which the server aggregates and tests models, and a line that explains
    the choice, None if the scenario made it."""
    device = device_of(scenario.engine)
    if device.type == "cpu":
        asked = scenario.engine.device == "cpu" or scenario.engine.kind == "flower"
        return device, None if asked else "server on the CPU: torch sees no GPU"
    _, needed = server_memory(scenario, dataset, device)
    free, _ = torch.cuda.mem_get_info(device)
    name = torch.cuda.get_device_name(device)
    if needed > SHARE_OF_FREE * free:
        what = f"{needed / 2**30:,.1f} GiB of updates, {free / 2**30:,.1f} GiB are free on {name}"
        return CPU, f"server on the CPU: {what}"
    return device, f"server on {device} ({name})"


def gpus() -> list[str]:
    """Return the names of the GPUs that torch sees."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _repeatable_cuda() -> None:
    """Ask for full float32 precision, and for deterministic kernels where CUDA has them.

    Runs on a GPU are repeatable as far as these go; identical bytes are promised only on a CPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
