"""Flower's quickstart server, with one of our strategies in place of Flower's.

``RobustFedAvg`` takes a rule and a reweighting as arguments; ``Observed`` watches any strategy of
Flower's from outside. Both leave a ledger of each round: whom they heard, and whom they suspected.
"""

from functools import partial

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, FedTrimmedAvg, Strategy

from plain_flower_app.task import Net, load_test_data, test
from strategies.aggregation import mean, multi_krum
from strategies.observed import Observed
from strategies.reweighting import agnostic
from strategies.robust import RobustFedAvg

app = ServerApp()


def build_strategy(name: str, n_malicious: int) -> Strategy:
    sampling = {"fraction_evaluate": 0.0}  # the server tests models itself
    trimmed = partial(FedTrimmedAvg, beta=0.2)
    rule = partial(multi_krum, n_malicious=n_malicious)
    lift = partial(agnostic, step_size=0.2)
    return {
        "FedAvg": lambda: Observed(FedAvg(**sampling)),
        "FedTrimmedAvg": lambda: Observed(trimmed(**sampling)),
        "multi_krum": lambda: RobustFedAvg(rule, **sampling),
        "agnostic": lambda: RobustFedAvg(mean, reweight=lift, **sampling),
    }[name]()


def partitions(grid: Grid) -> dict[int, int]:
    """Ask every node which partition it holds, for the README's table; strategies are not told."""
    queries = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
    return {
        reply.metadata.src_node_id: int(reply.content["metrics"]["partition-id"])
        for reply in grid.send_and_receive(queries)
    }


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    n_flipped = int(config["n-flipped"])
    strategy = build_strategy(str(config["strategy"]), n_flipped)
    partition_of, test_data = partitions(grid), load_test_data()

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        net = Net()
        net.load_state_dict(arrays.to_torch_state_dict())
        loss, accuracy = test(net, test_data)
        line = f"round {server_round:2d}  accuracy {accuracy:.3f}"
        if (ledger := strategy.ledger) is not None:
            entries = sorted(ledger.clients, key=lambda entry: partition_of[entry.client])
            weights = " ".join(f"{entry.weight:.2f}" for entry in entries)
            line += f"  weights {weights}  unexplained {ledger.residual:.3f}"
        print(line, flush=True)
        return MetricRecord({"accuracy": accuracy, "loss": loss})

    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=evaluate,
    )
