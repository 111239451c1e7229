"""Flower's quickstart client. Its last metric is needed only by strategies that lift by loss."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from plain_flower_app.task import Net, load_data, test, train

app = ClientApp()


@app.train()
def train_on_partition(message: Message, context: Context) -> Message:
    partition, n_partitions = (
        int(context.node_config[key]) for key in ("partition-id", "num-partitions")
    )
    config = context.run_config
    data = load_data(partition, n_partitions, flipped=partition < int(config["n-flipped"]))
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    received_loss, _ = test(net, data)
    loss = train(
        net,
        data,
        epochs=int(config["local-epochs"]),
        lr=float(config["learning-rate"]),
        batch_size=int(config["batch-size"]),
    )
    metrics = {"train-loss": loss, "num-examples": len(data), "received-loss": received_loss}
    content = RecordDict(
        {"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord(metrics)}
    )
    return Message(content, reply_to=message)


@app.query()
def name_partition(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"partition-id": int(context.node_config["partition-id"])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
