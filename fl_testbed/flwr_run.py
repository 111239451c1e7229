"""``flwr run .``: the testbed as a Flower app, with a scenario named in the run config.

All variants and seeds of the scenario run one after the other on the federation's SuperNodes, each
of which is a client: its node config's ``partition-id`` says which. So the federation needs exactly
as many SuperNodes as the scenario has clients.
"""

import os
import shlex
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from time import monotonic, sleep

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from clients.app import identify
from fl_testbed.console import RunProgress, make_console
from fl_testbed.data import Dataset
from fl_testbed.engine.earlier_runs import run_folder
from fl_testbed.engine.flower_engine import answer, run_on_nodes
from fl_testbed.engine.launch import launch
from fl_testbed.engine.options import Options
from fl_testbed.engine.run_writer import RunWriter
from fl_testbed.report.comparison import compare
from fl_testbed.report.formats import terminal
from fl_testbed.report.results import find_runs
from fl_testbed.scenario import Fault, Scenario, ScenarioError, load_scenarios
from fl_testbed.scenario.faults import options_called, renamed

STILL_S = 10.0  # after this long without a new node, no more are expected
IN_RUN_CONFIG = {
    "--out": "out",
    "--redo": "redo=true to --run-config",
    "--resume": "resume=true to --run-config",
    "pass --data-dir DIR": "set data-dir in --run-config",
}
"""How faults name each option of the command line under ``flwr run``."""
APP = Path(__file__).parents[1]  # where Flower has put the copy that runs


@cache
def scenarios_of(path: str, settings: str) -> list[Scenario]:
    """Read the scenario that a run config names by its path within the app, for Flower's engine.

    Raises:
        ScenarioError: If something is wrong with it.
    """
    scenarios = load_scenarios(APP / path, [*shlex.split(settings), "engine.kind=flower"])
    return [scenario for scenario in scenarios if isinstance(scenario, Scenario)]


def _scenarios(context: Context) -> list[Scenario]:
    config = context.run_config
    return scenarios_of(str(config["scenario"]), str(config["set"]))


@lru_cache(maxsize=1)  # one is enough: runs follow one another
def _scenario_of(path: str, settings: str, place: int) -> Scenario:
    return deepcopy(scenarios_of(path, settings)[place])  # which runs the user's own code anew


def _data_dir(context: Context) -> Path | None:
    folder = str(context.run_config["data-dir"]) or os.environ.get("FL_TESTBED_DATA")
    return Path(folder) if folder else None


def count_nodes(grid: Grid, n_wanted: int) -> int:
    """Wait until there are enough nodes, or no more come, and return how many there are."""
    n_nodes, since = -1, monotonic()
    while monotonic() - since < STILL_S:
        now = len(list(grid.get_node_ids()))
        if now >= n_wanted:
            return now
        if now > n_nodes:
            n_nodes, since = now, monotonic()
        sleep(0.1)
    return n_nodes


server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the scenario; a run that fails does not stop the others.

    Raises:
        ScenarioError: If something is wrong with it, or the federation has not as many SuperNodes
            as the scenario has clients.
        RuntimeError: After all runs, if some failed; the text says which, and why.
    """
    scenarios, data_dir = _scenarios(context), _data_dir(context)
    for scenario in scenarios:
        n_clients = len(scenario.clients.population)
        n_nodes = count_nodes(grid, n_clients)
        if n_nodes != n_clients:
            text = (
                f"{scenario.variant} has {n_clients} clients, but the federation {n_nodes} "
                f"SuperNodes: pass --federation-config 'num-supernodes={n_clients}'"
            )
            raise ScenarioError(Fault(str(context.run_config["scenario"]), "clients", text))
    out = Path(str(context.run_config["out"])).absolute()
    resume, redo = (bool(context.run_config[switch]) for switch in ("resume", "redo"))
    options = Options(out, data_dir, "flwr run", resume, redo)
    console = make_console()

    def compute(writer: RunWriter, scenario: Scenario, dataset: Dataset) -> None:
        assert isinstance(writer.scenario, Scenario)
        label = {"run": ConfigRecord({"place": scenarios.index(writer.scenario)})}
        run_on_nodes(writer, scenario, dataset, grid, label)

    with RunProgress(console, scenarios) as progress, options_called(IN_RUN_CONFIG):
        failed = launch(scenarios, options, progress, compute=compute)
    comparison = compare(find_runs(run_folder(out, s).path for s in scenarios))
    console.print(terminal(comparison, console.width))
    console.print(f"runs: {out / scenarios[0].name}", soft_wrap=True)
    if failed:
        raise RuntimeError(renamed("\n".join(failed), IN_RUN_CONFIG))


class RunConfigClientApp(ClientApp):
    """Trains as the scenario in the run config says."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message of the run that it names."""
        if message.metadata.message_type == "query":
            return identify(message, context)
        run = message.content.config_records["run"]
        if context.state.config_records.get("run") != run:  # the state is the previous run's
            context.state = RecordDict({"run": run})
        place, config = int(run["place"]), context.run_config  # pyright: ignore[reportArgumentType]
        scenario = _scenario_of(str(config["scenario"]), str(config["set"]), place)
        return answer(scenario, _data_dir(context), message, context)


client = RunConfigClientApp()
