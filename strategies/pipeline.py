"""One server step: a reweighting, pre-aggregations and an aggregation rule."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import torch

from strategies.aggregation.aggregate import Aggregate, Aggregator, dot_products, normalised
from strategies.aggregation.traits import RowByRow, traits_of
from strategies.memory import Memory
from strategies.oracle import Oracle
from strategies.pre_aggregation.mixed import Mixed, PreAggregator, prior_of_rows, pulled_back
from strategies.reweighting.lift import Reweighter
from strategies.shapes import Bool, Float, Int, Tensor

Order = Literal["filter_then_lift", "lift_then_filter"]


@dataclass(frozen=True)
class RoundFacts:
    """What the server knows about a round. Rules name the facts they need as parameters."""

    round_: int
    """The round, from 1."""
    clients: Int[Tensor, " n"]
    """Ids of the clients, row by row."""
    prior: Float[Tensor, " n"]
    """Each client's weight before anything else, sum 1."""
    losses: Float[Tensor, " n"]
    """Mean loss of the received model on each client's data, as the client reports it, or of each
    client's updated model on the server's data, as the server measures it; NaN where not needed."""
    confidences: Float[Tensor, " n"]
    """The mean probability that the same model gives the labels of the same data."""
    received: Callable[[], Float[Tensor, " d"]]
    """Returns the global parameters that clients received, on the updates' device; a rule that
    names ``received`` gets the result."""
    layers: Mapping[str, slice]
    """Where each array of parameters stands in a row, by its name in the model."""
    reference: Callable[[], Float[Tensor, " d"]]
    """Returns the update that the server makes by training the received model on its own data; a
    rule that names ``reference`` gets the result."""
    evaluate: Callable[[Float[Tensor, " d"]], tuple[float, float]]
    """Returns the error rate and mean loss, on the server's validation set, of the model that an
    update would give."""
    respond: Callable[[Float[Tensor, " d"], int], Float[Tensor, "m classes"]]
    """Returns the outputs (logits), on the updates' device, of the model that an update would give,
    for a given number of random inputs: the same inputs in every call of a round."""
    represent: Callable[[Float[Tensor, " d"]], Float[Tensor, "m width"]]
    """Returns the inputs of the output layer, on the updates' device, in the model that an update
    would give, for the server's own data."""
    rng: np.random.Generator
    """The round's random numbers: the reweighting draws first, then pre-aggregations, in their
    order, then the rule."""

    @classmethod
    def of_equals(cls, n: int, rng: np.random.Generator, **known: Any) -> "RoundFacts":
        """Return a round of n equal clients about which no more is known: their reports are NaN,
        and asking the server for a fact raises."""
        unknown = {
            "round_": 1,
            "clients": torch.arange(n),
            "prior": torch.full((n,), 1 / n, dtype=torch.float64),
            "losses": torch.full((n,), torch.nan, dtype=torch.float64),
            "confidences": torch.full((n,), torch.nan, dtype=torch.float64),
            "layers": {},
            **dict.fromkeys(
                ("received", "reference", "evaluate", "respond", "represent"), _unknown
            ),
        }
        return cls(**{**unknown, **known}, rng=rng)


def _unknown(*args: Any) -> NoReturn:
    raise AssertionError("nobody knows this fact of the round")


class ServerStep(NamedTuple):
    """What the server does with a round."""

    result: Aggregate
    contribution: Float[Tensor, " n"]
    """Each client's share of the pull along the update: wᵢ⟨uᵢ, Δ⟩ / Σⱼ wⱼ⟨uⱼ, Δ⟩. NaN where that
    sum is not positive: where nothing moves, or where other parts of the update (a centre carried
    over, flipped signs, noise) outweigh what comes from the clients."""
    memory: Memory
    restart: bool
    lift: Float[Tensor, " n"]
    """Each client's weight before the rule has its say."""


class Pipeline:
    """A server step built from its parts.

    ``filter_then_lift``: the rule judges the plain updates, and averages those it keeps by the
    lifted weights. ``lift_then_filter``: each update is scaled by n · lift, then the rule judges.
    Pre-aggregations come right before the rule, whose results for their rows are pulled back to
    clients.

    Args:
        aggregate: The rule, with its own parameters bound.
        reweight: The reweighting, with its own parameters bound; none by default.
        order: Which comes first, the rule (filter) or the reweighting (lift).
        pre_aggregate: Pre-aggregations in their order, with their own parameters bound.
        oracle: Corrects the reweighting or the rule by the truth about clients, for comparison.

    Raises:
        TypeError: If one of these functions needs a parameter that is neither bound nor a fact of a
            round, or if pre-aggregations would mix the clients that a rule remembers.
    """

    AGGREGATE_FACTS = frozenset(field.name for field in fields(RoundFacts)) | {"memory"}
    PRE_AGGREGATE_FACTS = frozenset({"prior", "rng", "out"})
    REWEIGHT_FACTS = frozenset(
        {"round_", "clients", "prior", "losses", "confidences", "memory", "updates", "rng"}
    )
    ROW_FACTS = ("clients", "prior", "losses", "confidences")
    RULE_MEMORY = "rule."  # what a rule carries over is kept under this prefix

    def __init__(
        self,
        aggregate: Aggregator,
        reweight: Reweighter | None = None,
        order: Order = "filter_then_lift",
        pre_aggregate: Sequence[PreAggregator] = (),
        oracle: Oracle | None = None,
    ) -> None:
        self.aggregate, self.reweight, self.order = aggregate, reweight, order
        self.oracle = oracle or Oracle((), ())
        self.pre_aggregate = tuple(pre_aggregate)
        self._aggregate_asks = asked_facts(aggregate, self.AGGREGATE_FACTS, skip=1)
        self._pre_aggregate_asks = tuple(
            asked_facts(step, self.PRE_AGGREGATE_FACTS, skip=1) for step in self.pre_aggregate
        )
        self._reweight_asks = (
            asked_facts(reweight, self.REWEIGHT_FACTS, skip=0) if reweight else frozenset()
        )
        if self.pre_aggregate and "clients" in self._aggregate_asks:
            raise TypeError(
                f"{_name(aggregate)} remembers clients from round to round, and pre-aggregations "
                "mix them: use it without any"
            )

    def rule_asks(self, fact: str) -> bool:
        """Whether the rule names a fact of a round."""
        return fact in self._aggregate_asks

    @property
    def needs_losses(self) -> bool:
        """Whether the rule or the reweighting needs clients' losses, alone or with confidences."""
        asked = self._aggregate_asks | self._reweight_asks
        return "losses" in asked or self.needs_confidences

    @property
    def needs_confidences(self) -> bool:
        """Whether the rule or the reweighting needs clients' confidences."""
        return "confidences" in self._aggregate_asks | self._reweight_asks

    @property
    def row_by_row(self) -> RowByRow | None:
        """How each row is scaled, where the step is a mean of scaled rows that can be summed as
        they come; None where the step needs all rows at once."""
        of_bound = traits_of(self.aggregate).row_by_row
        corrected = self.oracle.removing != "standard"
        if of_bound is None or self.reweight is not None or self.pre_aggregate or corrected:
            return None
        return of_bound(**getattr(self.aggregate, "keywords", {}))

    @property
    def n_copies(self) -> int:
        """The most matrices of the updates' size that there are beside it: rows mixed by a
        pre-aggregation, the rows left to judge without the shielded ones, and what a rule remembers
        of each client, before and after the round."""
        mixes = any("out" not in asks for asks in self._pre_aggregate_asks)
        return mixes + (self.oracle.removing == "shielded") + 2 * self.remembers_updates

    @property
    def remembers_updates(self) -> bool:
        """Whether the rule may remember, for each client, a row as long as an update."""
        return {"clients", "memory"} <= self._aggregate_asks

    @property
    def compares_pairs(self) -> bool:
        """Whether some part of the step holds (n, n) figures, one per pair of clients, as in a
        mixing matrix."""
        methods = (self.aggregate, self.reweight)
        return bool(self.pre_aggregate) or any(traits_of(m).compares_pairs for m in methods)

    def __call__(
        self,
        updates: Float[Tensor, "n d"],
        facts: RoundFacts,
        memory: Memory,
        overwrite: bool = False,
    ) -> ServerStep:
        """Run one server step.

        ``lift_then_filter`` scales the rows of ``updates`` in place; with ``overwrite`` clipping
        does too, so that no second matrix is needed.
        """
        rule_memory = {
            name.removeprefix(self.RULE_MEMORY): value
            for name, value in memory.items()
            if name.startswith(self.RULE_MEMORY)
        }
        memory = {k: v for k, v in memory.items() if not k.startswith(self.RULE_MEMORY)}
        known: dict[str, Any] = {**vars(facts), "memory": memory}
        step, restart, scales, lifted = 1.0, False, None, facts.prior
        if self.reweight is not None:
            known["updates"] = updates
            lift = self.reweight(**{name: known[name] for name in self._reweight_asks})
            home = facts.prior.device  # a method that reads updates may answer on their device
            lengths = None if lift.lengths is None else lift.lengths.to(home)
            lift = lift._replace(weights=lift.weights.to(home), lengths=lengths)
            lift = self.oracle.corrected(lift, facts.clients, facts.prior)
            lifted, memory, step, restart = lift[:4]
            known["prior"] = lifted
            if self.order == "lift_then_filter":
                scales = (len(updates) * lift.weights).to(updates.device)
                largest = torch.finfo(updates.dtype).max  # a scaled row stays finite
                updates.mul_(scales.to(updates.dtype)[:, None]).clamp_(-largest, largest)
                known["prior"] = torch.full_like(lift.weights, 1 / len(updates))
        if "reference" in self._aggregate_asks:
            known["reference"] = facts.reference()
        if "received" in self._aggregate_asks:
            known["received"] = facts.received()
        known["memory"] = rule_memory
        clipped = _ones(updates) if overwrite else None
        result = self.oracle.judged(
            updates,
            facts.clients,
            known["prior"],
            lambda rows: self._judged(updates, rows, known, clipped, scales),
            scales,
        )
        pulls = result.pulls
        if pulls is None:
            heard = result.weights if result.multipliers is None else result.multipliers
            pulls = heard * dot_products(updates, result.update)
            if clipped is not None:  # back to the updates as clients sent them
                pulls = torch.where(clipped > 0, pulls / clipped, 0.0)
        total = pulls.sum()
        contribution = pulls / total if total > 0 else torch.full_like(pulls, torch.nan)
        if scales is not None and not result.of_directions:
            # The ledger's weights are those of the updates as clients sent them.
            result = result._replace(weights=normalised(result.weights * scales))
        result = result._replace(update=result.update * step)
        # A restart begins the training again, and the rule with it.
        kept = {} if restart else {self.RULE_MEMORY + k: v for k, v in result.memory.items()}
        return ServerStep(result, contribution, {**memory, **kept}, restart, lifted)

    def _judged(
        self,
        updates: Float[Tensor, "n d"],
        chosen: Bool[Tensor, " n"],
        known: dict[str, Any],
        clipped: Float[Tensor, " n"] | None,
        scales: Float[Tensor, " n"] | None,
    ) -> Aggregate:
        """Run the pre-aggregations and the rule on the chosen rows alone.

        If ``clipped`` is given, rows may be overwritten, and it takes the factors by which they are
        clipped; ``scales`` are the factors of a lift that came first.
        """
        if not chosen.any():  # nobody to judge: the rule's memory stays as it is
            nobody = updates.new_empty(0)
            return Aggregate(torch.zeros_like(updates[0]), nobody, nobody, known["memory"])
        if not chosen.all():
            updates = updates[chosen.to(updates.device)]  # a copy, which nobody else needs
            clipped = _ones(updates)
            scales = None if scales is None else scales[chosen.to(scales.device)]
            known |= {name: known[name][chosen] for name in self.ROW_FACTS}
            known["prior"] = normalised(known["prior"])
        rows, mixing = self._mixed(updates, known, clipped)
        result = self.aggregate(rows, **{name: known[name] for name in self._aggregate_asks})
        return result if mixing is None else pulled_back(result, mixing, scales)

    def _mixed(
        self,
        updates: Float[Tensor, "n d"],
        known: dict[str, Any],
        clipped: Float[Tensor, " n"] | None,
    ) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m n"] | None]:
        """Run the pre-aggregations; set the prior and the losses of the rows they return."""
        rows, mixing = updates, None
        for pre_aggregate, asks in zip(self.pre_aggregate, self._pre_aggregate_asks, strict=True):
            came_in = rows is updates
            known["out"] = rows if clipped is not None or not came_in else None
            mixed: Mixed = pre_aggregate(rows, **{name: known[name] for name in asks})
            if came_in and mixed.updates is rows and clipped is not None:
                clipped *= mixed.mixing.diagonal().to(clipped)
            rows, step = mixed.updates, mixed.mixing.double()
            mixing = step if mixing is None else step @ mixing
            known["prior"] = prior_of_rows(step, known["prior"])
            shares = (step / step.sum(dim=1, keepdim=True)).to(known["losses"])
            known["losses"] = shares @ known["losses"]
            known["confidences"] = shares @ known["confidences"]
        return rows, mixing


def _ones(updates: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    return torch.ones(len(updates), dtype=torch.float64, device=updates.device)


def asked_facts(rule: Callable[..., Any], facts: Iterable[str], skip: int) -> frozenset[str]:
    """Return the facts that a rule names as parameters and that are not bound already."""
    # functools.partial gives a bound keyword a default of its own; the rule's own defaults stay.
    bound = set(getattr(rule, "keywords", {}))
    parameters = list(inspect.signature(rule).parameters.values())[skip:]
    asked = {p.name for p in parameters if p.name in set(facts) - bound}
    missing = [
        p.name
        for p in parameters
        if p.name not in asked and p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    if missing:
        raise TypeError(
            f"{_name(rule)} needs {', '.join(missing)}, which is not a fact of a round: bind it "
            f"with functools.partial. Facts of a round: {', '.join(sorted(facts))}"
        )
    return frozenset(asked)


def described(method: Callable[..., Any]) -> str:
    """Return a method's name and its bound parameters: ``multi_krum(n_malicious=2)``."""
    bound = getattr(method, "keywords", {}).items()
    return f"{_name(method)}({', '.join(f'{name}={value!r}' for name, value in bound)})"


def _name(rule: Callable[..., Any]) -> str:
    return getattr(getattr(rule, "func", rule), "__name__", repr(rule))
