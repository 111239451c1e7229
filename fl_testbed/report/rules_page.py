"""The page on rules, made from their docstrings. ``make docs`` writes it."""

import sys
from pathlib import Path
from typing import NamedTuple

from fl_testbed.scenario.catalogue import CATALOGUE, parameters_of
from fl_testbed.scenario.docstrings import entries, sections
from fl_testbed.scenario.spec import Spec
from strategies.aggregation.traits import traits_of
from strategies.pipeline import Pipeline

FACTS = Pipeline.AGGREGATE_FACTS | Pipeline.PRE_AGGREGATE_FACTS | Pipeline.REWEIGHT_FACTS
FIRST = {"updates", "update"}  # what methods work on; most reweightings have neither

INTRODUCTION = """\
# Rules

What the server can do with the updates of a round. This page is made from the docstrings by `make docs`; a test compares the two.

n is the number of clients in the round and d the number of parameters. f, or `n_malicious`, is how many clients a rule *assumes* to be
malicious: a count; a number below 1, which is a fraction of the round's sample and rounded down; or `oracle`, the number that really attack.
An update is the local parameters minus the global ones. The prior is a client's weight before the rule decides: equal for all, by numbers of
examples (`weight_by`), or what a reweighting made of it.

Every rule is given updates, whatever its paper was written for. Krum, Bulyan, the medians, trimmed means, DnC, SignGuard and FLDetector were
written for gradients, which are updates of one local step (`training.local_steps: 1`) times -1 / lr. Centred clipping, bucketing,
nearest-neighbour mixing, ARC and CAF were written for momentum that workers send, which is `local_method: {kind: worker_momentum}`. It averages
updates: where `training.lr_decay` is below 1, each of them has the lr of its own round, while momentum of gradients would have this round's.

A rule returns the combined *update*; *weights*, each client's share in it, which are >= 0 and sum to 1, or are all 0 where the rule moves
nothing; and *suspicion*, the rule's own score, which is higher for clients that it trusts less. If a round has fewer clients than a rule needs
(TooFewClientsError), it is skipped or the run stops, as `strategy.on_too_few` says; a scenario that can never have enough is refused.
"""  # noqa: E501 (lines of a page)


class Chapter(NamedTuple):
    """One kind of method."""

    title: str
    where: str
    """How a scenario names one, KIND standing for its mapping."""
    preface: str


CHAPTERS = {
    "rules": Chapter(
        "Aggregation",
        "aggregation: KIND",
        "From the updates of a round to one.",
    ),
    "pre_aggregations": Chapter(
        "Pre-aggregation",
        "pre_aggregation: [KIND]",
        "Steps before the rule, in the order of the list. Each turns rows into other rows, and "
        "says by its mixing matrix how much of each client is in them: weights and suspicion of "
        "the rows are pulled back through it to clients. A rule that remembers clients from round "
        "to round takes none.",
    ),
    "reweightings": Chapter(
        "Reweighting",
        "reweighting: KIND",
        "Whom the server lifts up. With `order: filter_then_lift` the rule judges the plain "
        "updates and averages those it keeps by the lifted weights; with `lift_then_filter` each "
        "update is scaled by n times its weight, and then the rule judges.",
    ),
    "server_optimizers": Chapter(
        "Server optimizers",
        "server_optimizer: KIND",
        "How the server moves along the resulting update. Without one it adds the update to "
        "the model. Weights, suspicion and contributions are those of the update, whatever becomes "
        "of it; a round in which nobody has any weight moves nothing, and a restart forgets all.",
    ),
}


def rules_page() -> str:
    """Return the page, in Markdown."""
    parts = [INTRODUCTION]
    for name, chapter in CHAPTERS.items():
        kinds = {kind: spec for kind, spec in CATALOGUE[name].items() if hasattr(spec, "function")}
        parts += [f"## {chapter.title}\n", f"{chapter.preface}\n", _index(kinds)]
        parts += [_description(kind, spec, chapter) for kind, spec in kinds.items()]
    return "\n".join(parts)


def _index(kinds: dict[str, type[Spec]]) -> str:
    lines = ["| kind | what it is | needs |", "|---|---|---|"]
    for kind, spec in kinds.items():
        what = (spec.__doc__ or "").splitlines()[0].replace("|", "\\|")
        bound = traits_of(getattr(spec, "function", None)).bound or "–"
        lines.append(f"| [`{kind}`](#{kind}) | {what} | {bound} |")
    return "\n".join([*lines, ""])


def _description(kind: str, spec: type[Spec], chapter: Chapter) -> str:
    method = getattr(spec, "function")  # noqa: B009 (not every Spec has one)
    said, arguments = sections(method), entries(method, "Args")
    results = entries(method, "Returns")
    parameters = parameters_of(spec)
    needed = [f"{name}: …" for name, default in parameters.items() if default is None]
    mapping = "{" + ", ".join([f"kind: {kind}", *needed]) + "}"
    given = set() if chapter is CHAPTERS["reweightings"] else FIRST
    handed = [name for name in arguments if name in FACTS - {"memory"} - given]
    in_python = [name for name in arguments if name not in {*FIRST, *FACTS, *parameters}]
    lines = [
        f"### {kind}\n",
        f"`{chapter.where.replace('KIND', mapping)}`\n",
        f"{said['']}\n",
        *_bullets("Parameters", {n: _parameter(spec, n, arguments.get(n)) for n in parameters}),
        *_bullets("Handed by the server", {name: arguments[name] for name in handed}),
        *_bullets("In Python also", {name: arguments[name] for name in in_python}),
        f"* **State:** {arguments.get('memory', 'None.')}",
        *(f"* **{name.capitalize()}:** {text}" for name, text in results.items()),
        *(f"* **{name}:** {said[name]}" for name in ("Bound", "Ties", "Variants", "References")),
        "",
    ]
    return "\n".join(lines)


def _bullets(title: str, texts: dict[str, str]) -> list[str]:
    if not texts:
        return []
    return [f"* **{title}:**", *(f"  * `{name}`: {text}" for name, text in texts.items())]


def _parameter(spec: type[Spec], name: str, said: str | None) -> str:
    default = parameters_of(spec)[name]
    texts = (said, spec.model_fields[name].description)
    stated = "needed" if default is None else f"default {default}"
    return f"({stated}) " + " ".join(text for text in texts if text)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(rules_page(), encoding="utf-8")
