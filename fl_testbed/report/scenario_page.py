"""The page on scenarios: every key, made from the classes that read it, by ``make docs``."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fl_testbed.scenario import CentralizedScenario, Scenario
from fl_testbed.scenario import centralized as pooled
from fl_testbed.scenario.attacks import AttackersSpec, AttackerTrainingSpec, ScheduleSpec
from fl_testbed.scenario.catalogue import CATALOGUE, as_yaml
from fl_testbed.scenario.datasets import DatasetSpec, LongTailSpec
from fl_testbed.scenario.docstrings import entries, sections
from fl_testbed.scenario.flower_strategy import FlowerStrategySpec
from fl_testbed.scenario.json_schema import REF, Schema, scenario_schema
from fl_testbed.scenario.partitions import ClientsSpec
from fl_testbed.scenario.parts import (
    EvaluationSpec,
    RecordUpdatesSpec,
    SamplingSpec,
    ServerBiasSpec,
    ServerDataSpec,
    TrainingSpec,
)
from fl_testbed.scenario.scenario import EngineSpec
from fl_testbed.scenario.spec import Spec
from fl_testbed.scenario.strategy import OracleSpec, StrategySpec

INTRODUCTION = """\
# Scenarios, key by key

Made from the classes in `fl_testbed/scenario/` by `make docs`; a test compares the two. `fl-testbed schema` prints the same as a JSON Schema: an editor that
reads the first line of the files in `configs/` completes keys and underlines typos. `fl-testbed validate SCENARIO` also checks what no single key shows.

* A key that is not here is an error, with its file and line. *Needed* means that there is no default.
* `kind` picks the method; its other keys stand beside it. A kind with a colon is code of your own: [extending](extending.md).
* `n_malicious` is a number of clients, or below 1 a fraction of the round's sample, rounded down. With `oracle` the rule is told how many ever attack: of all, or their share of the sample, rounded down; `num_malicious_nodes` of Flower's strategies takes it too. *As there*: the defaults in the table that the link leads to.
* **`variants`** are named changes to the base, written as a mapping (`strategy: {aggregation: …}`, which goes into what is there) or with dotted keys (`strategy.aggregation: …`). A mapping that names a `kind` replaces the old one.
* **`sweep`** has lists of values by dotted key, or names with values, which keep the names of variants short (`attack: {none: {kind: none}, mine: {kind: "my_attack.py:forge"}}`); every
  variant runs with every combination.
* **`extends`** names a file, or several, that this one begins from, relative to it.
* On the command line `--set KEY=VALUE` changes the base, and every variant and swept value that has the key; it replaces a sweep of the key itself.
* In all of these, mappings go into what is there, as those of variants do; lists replace it, and so do `variants` and `sweep` themselves (`--set 'sweep.attack={mine: {kind: alie, z: 2}}'`).
"""  # noqa: E501 (lines of a page)


class Part(NamedTuple):
    """A section: a mapping with fixed keys, or one with several kinds."""

    heading: str
    what: type[Spec] | str
    """The class, or a name in the catalogue."""
    preface: str = ""


STRATEGIES = (
    "Rules, steps before them and reweightings, with parameters, bounds and papers: "
    "[rules.md](rules.md). `flare`, `fltrust`, `error_rate_rejection`, `loss_rejection` and "
    "`union_rejection` need `server_data`, and so does `losses: measured`. With `order: "
    "filter_then_lift` the rule judges plain updates, and those it keeps are averaged by lifted "
    "weights; with `lift_then_filter` it judges updates that are scaled by the lift first. Before "
    "both, clients weigh the same (`weight_by: clients`) or in proportion to their examples. Where "
    "fewer usable replies come than the rule's bound needs, the round is skipped or the run stops."
)
PARTS = (
    Part("A scenario", Scenario),
    Part("clients", ClientsSpec, "Who holds what is explained in [datasets](datasets.md)."),
    Part("sampling", SamplingSpec, "A function of yours may select: [extending](extending.md)."),
    Part("training", TrainingSpec),
    Part("server_data", ServerDataSpec),
    Part(
        "server_data.bias",
        ServerBiasSpec,
        "What FLTrust's authors call bias probability is the share of class 1; of ten equal "
        "classes 0.1 is no bias.",
    ),
    Part("strategy", StrategySpec, STRATEGIES),
    Part(
        "strategy.oracle",
        OracleSpec,
        "Another oracle is `n_malicious: oracle`. Every table marks runs with an oracle by †.",
    ),
    Part(
        "strategy, of Flower's",
        FlowerStrategySpec,
        "`kind: flower`. See [extending](extending.md).",
    ),
    Part("evaluation", EvaluationSpec),
    Part("record_updates", RecordUpdatesSpec),
    Part("engine", EngineSpec),
    Part(
        "attackers",
        AttackersSpec,
        "A list: several kinds of attackers in one federation, in place of `attack`, "
        "`training_attack`, `reported_loss` and `schedule`.",
    ),
    Part("attackers.training", AttackerTrainingSpec, "Honest clients' settings by default."),
    Part("schedule", ScheduleSpec, "Outside it attackers are honest, on clean data."),
    Part(
        "attack",
        "attacks",
        "What attackers send. `knowledge` is which updates they see: `omniscient`, all honest ones "
        "of the round; `colluding`, each other's. [attacks](attacks.md) has examples, "
        "[experiments/attacks](../experiments/attacks/README.md) what each does.",
    ),
    Part("training_attack", "training_attacks", "What attackers do while they train."),
    Part(
        "poison",
        "poisons",
        "What attackers train on. How success is counted is said in [attacks](attacks.md).",
    ),
    Part("trigger", "triggers", "What a backdoor stamps on an example."),
    Part(
        "local_method",
        "local_methods",
        "A method inside every client, attackers too, whatever the server does.",
    ),
    Part("dataset", "datasets", "Files, groups and sources: [datasets](datasets.md)."),
    Part("dataset.long_tail", LongTailSpec),
    Part("dataset.minority", "minorities"),
    Part("partition", "partitions"),
    Part("model", "models"),
    Part("A scenario on pooled data", CentralizedScenario, "See [centralized](centralized.md)."),
    Part("training, pooled", pooled.PooledTrainingSpec),
    Part("attacker, pooled", pooled.PooledAttackerSpec),
    Part("evaluation, pooled", pooled.PooledEvaluationSpec),
    Part("stages", "stages", "A list, in the order in which they are done."),
    Part("poison, pooled", "pooled_poisons", "Those that federations lack."),
)
ELSEWHERE = {
    "rules": "rules.md#aggregation",
    "pre_aggregations": "rules.md#pre-aggregation",
    "reweightings": "rules.md#reweighting",
    "server_optimizers": "rules.md#server-optimizers",
}
DEFINITIONS: dict[str, Schema] = scenario_schema()["$defs"]


def scenario_page() -> str:
    """Return the page, in Markdown."""
    return "\n".join([INTRODUCTION, *(_section(part) for part in PARTS)]).replace("``", "`")


def _kinds(part: Part) -> dict[str, type[Spec]]:
    assert isinstance(part.what, str)
    known = CATALOGUE["poisons"] if part.what == "pooled_poisons" else {}
    return {kind: spec for kind, spec in CATALOGUE[part.what].items() if kind not in known}


def _links() -> Iterator[tuple[str, str]]:
    """Yield each class's name, with a link to where the page describes it."""
    for name, address in ELSEWHERE.items():
        yield from ((spec.__name__, f"[a kind]({address})") for spec in CATALOGUE[name].values())
    for part in reversed(PARTS):  # shared classes link to the federation's section
        anchor = re.sub(r"[^\w-]", "", part.heading.lower().replace(" ", "-"))
        if isinstance(part.what, str):
            kinds = CATALOGUE[part.what].values()
            yield from ((spec.__name__, f"[a kind](#{anchor})") for spec in kinds)
        else:
            yield part.what.__name__, f"[keys](#{anchor})"


LINKS = dict(_links())


def _section(part: Part) -> str:
    lines = [f"## {part.heading}\n"]
    if not isinstance(part.what, str):
        what = (part.what.__doc__ or "").split("\n\n")[0]
        lines.append(" ".join([*what.split(), *part.preface.split()]))
        return "\n".join([*lines, *_table(part.what), ""])
    preface = _default_minorities() if part.what == "minorities" else part.preface
    lines += [preface + "\n"] if preface else []
    for kind, spec in _kinds(part).items():
        function = getattr(spec, "function", None)
        what = " ".join((spec.__doc__ or "").split())
        source = sections(function).get("References", "") if function else ""
        lines.append(f"**`{kind}`**: {what}" + (f" *{source.rstrip('.')}.*" if source else ""))
        lines += [*_table(spec, function), ""]
    return "\n".join(lines)


def _default_minorities() -> str:
    """Say which minority each dataset has by default."""
    usual, datasets = _default(DatasetSpec, "minority"), dict[str, list[str]]()
    for kind, spec in CATALOGUE["datasets"].items():
        datasets.setdefault(_default(spec, "minority"), []).append(f"`{kind}`")
    others = [f"{', '.join(kinds)}: {own}" for own, kinds in datasets.items() if own != usual]
    return f"By default {usual}, for these datasets another: {'; '.join(others)}."


def _table(model: type[Spec], function: Callable[..., object] | None = None) -> list[str]:
    """Return what a mapping's keys mean, below an empty line; nothing if it has none."""
    said = entries(function, "Args") | entries(function, "Attributes") if function else {}
    rows = []
    for key, node in DEFINITIONS[model.__name__]["properties"].items():
        is_everyones = key in ("minority", "long_tail") and "dataset" in model.__module__
        if key not in model.model_fields or "const" in node or is_everyones:
            continue
        meaning = node.get("description") or said.get(key) or _nested(node)
        cells = (f"`{key}`", _value(node), _default(model, key), meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return ["", "| key | value | default | meaning |", "|---|---|---|---|", *rows] if rows else []


def _nested(node: Schema) -> str:
    if "$ref" not in node:
        return ""
    what = " ".join(DEFINITIONS[node["$ref"].removeprefix(REF)]["description"].split())
    return re.match(r".*?\.(?= |$)|.*", what)[0]  # pyright: ignore[reportOptionalSubscript]


def _default(model: type[Spec], key: str) -> str:
    field = model.model_fields[key]
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Spec):
        stated = value.model_dump(exclude_unset=True)
        kinds = value.model_dump(include={"kind"})
        value = kinds | stated
        if not value or isinstance(field.default, EngineSpec):
            return "as there"
    return "none" if value is None else f"`{as_yaml(value)}`"


def _value(node: Schema) -> str:
    """Return which values a key takes, in words."""
    if several := node.get("oneOf") or node.get("anyOf"):
        members = [member for member in several if member.get("type") != "null"]
        return " or ".join(dict.fromkeys(text for m in members if (text := _value(m))))
    if "$ref" in node:
        name = node["$ref"].removeprefix(REF)
        if name.startswith("Own"):
            return ""
        if link := LINKS.get(name):
            return link
        return "`{" + ", ".join(_inner(DEFINITIONS[name]["properties"])) + "}`"
    if "enum" in node:
        return ", ".join(f"`{as_yaml(value)}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    kind = node.get("type")
    if kind == "array":
        size = f"list of {node['maxItems']}" if "maxItems" in node else "list"
        return f"{size}, each {_value(node['items'])}"
    words = {"boolean": "`true`, `false`", "string": "text", "object": "mapping"}
    return words.get(str(kind)) or f"{kind}{_bounds(node)}"


def _inner(properties: Schema) -> Iterator[str]:
    for key, node in properties.items():
        yield f"kind: {node['const']}" if "const" in node else key


def _bounds(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    above = above if low is None else None
    texts = (
        (f"> {above}", above),
        (f"≥ {low}", low),
        (f"< {below}", below),
        (f"≤ {high}", high),
    )
    said = " and ".join(text for text, bound in texts if bound is not None)
    return f" {said}" if said else ""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(scenario_page(), encoding="utf-8")
