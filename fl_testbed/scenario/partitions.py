"""Who holds what: clients by role, and how examples are dealt to them."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fl_testbed.data import Examples, Population, dealing
from fl_testbed.data.dealing import Dealer, Pool
from fl_testbed.scenario.own_specs import OwnSpec
from fl_testbed.scenario.spec import BY_KIND, ClientCount, Fraction, FunctionSpec, Spec

RoleName = Literal["honest_majority", "honest_minority", "poisoned"]
Lost = Annotated[float, Field(ge=0, lt=1)]


class ClientsSpec(Spec):
    """How many clients each role has, and which and how many examples each client holds."""

    honest_majority: ClientCount  # clients; ids run through the three roles in this order
    honest_minority: ClientCount  # clients that hold the minority's examples
    poisoned: ClientCount  # clients that attack
    examples_each: PositiveInt | None = None  # size of a shard; none: all examples are dealt
    overlap: bool = False  # whether two clients may hold the same example
    minority_concentration: Fraction = 1.0  # 1: minority data only in its clients, 0: in all alike
    minority_mix: dict[str, NonNegativeFloat] | None = None  # shares of groups in a minority client
    poisoned_hold: Literal["majority", "minority"] = "majority"  # whose data attackers hold
    legacy_dealing: bool = False  # true: as in some stored results, see federations.md
    dropout: Lost | None = None  # chance that a client's reply is lost
    dropout_of: dict[RoleName, Lost] | None = None  # the same by role: {honest_minority: 0.5}

    @property
    def population(self) -> Population:
        """The clients by role."""
        return Population(self.honest_majority, self.honest_minority, self.poisoned)

    @property
    def dropouts(self) -> np.ndarray:
        """Each client's share of replies lost, shape (n,)."""
        shares = dict.fromkeys(get_args(RoleName), self.dropout or 0.0)
        shares |= self.dropout_of or {}
        counts = (self.honest_majority, self.honest_minority, self.poisoned)
        return np.repeat([*shares.values()], counts)


class PartitionSpec(FunctionSpec):
    """What all ways of dealing examples have in common."""

    by_natural_client: ClassVar[bool] = False
    """Whether natural clients stay whole."""
    can_overlap: ClassVar[bool] = False
    """Whether a client's examples can be drawn without regard to those of the others."""

    def build(self, train: Examples) -> Dealer:
        """Return the way of dealing the training examples, its arguments bound."""
        return self.bind()


class IidSpec(PartitionSpec):
    """Random examples, the same number for each client."""

    kind: Literal["iid"] = "iid"
    can_overlap: ClassVar[bool] = True
    function = staticmethod(dealing.iid)


class QuantitySpec(PartitionSpec):
    """Random examples, in numbers drawn from a Dirichlet distribution."""

    kind: Literal["quantity"]
    alpha: PositiveFloat  # the smaller, the more unequal the sizes
    min_examples: PositiveInt = 10  # fewest examples in a shard
    function = staticmethod(dealing.quantity_skew)


class DirichletSpec(PartitionSpec):
    """Classes in proportions drawn from a Dirichlet distribution."""

    kind: Literal["dirichlet"]
    alpha: PositiveFloat  # per class; the smaller, the more unequal the proportions
    min_examples: PositiveInt = 10  # fewest in a shard, if examples_each is not given
    can_overlap: ClassVar[bool] = True
    function = staticmethod(dealing.dirichlet)


class PathologicalSpec(PartitionSpec):
    """Examples sorted by class and cut into shards, of which each client gets a few."""

    kind: Literal["pathological"]
    shards_per_client: PositiveInt = 2
    function = staticmethod(dealing.pathological)


class NaturalSpec(PartitionSpec):
    """The dataset's own clients, such as writers."""

    kind: Literal["natural"]
    merge: bool = False  # join natural clients until they have examples_each
    min_examples: PositiveInt = 10  # leaves out smaller natural clients if examples_each is not set
    by_natural_client: ClassVar[bool] = True
    function = staticmethod(dealing.natural)


class OwnPartitionSpec(OwnSpec, PartitionSpec):
    """Your own partition: file.py:name or package.module:name."""

    facts = frozenset({"examples", "n_clients", "n_attackers", "rng"})

    def build(self, train: Examples) -> Dealer:
        """Return a dealer that deals as the function says."""

        def indices(pool: Pool, rng: np.random.Generator) -> Sequence[np.ndarray]:
            dealt = self.called(
                examples=train.take(pool.rows),
                n_clients=pool.n_clients,
                n_attackers=pool.n_attackers,
                rng=rng,
            )
            if wrong := _flaw_of_deal(dealt, pool.n_clients, len(pool.rows)):
                raise self.code.refused(wrong)
            return dealt

        return partial(dealing.by_indices, indices=indices)


def _flaw_of_deal(dealt: Any, n_clients: int, n: int) -> str:
    """Return what is wrong with the indices that clients are to get, or nothing."""
    if not isinstance(dealt, Sequence) or len(dealt) != n_clients:
        given = len(dealt) if isinstance(dealt, Sequence) else type(dealt).__name__
        return f"must return a list of {n_clients} arrays, one for each client, returned {given}"
    for client, own in enumerate(dealt):
        if not isinstance(own, np.ndarray) or own.dtype.kind != "i" or own.ndim != 1:
            given = own.dtype if isinstance(own, np.ndarray) else type(own).__name__
            return f"must return int64 indices of shape (n,), returned {given} for client {client}"
        if not len(own):
            return f"must return examples for every client, returned none for client {client}"
    indices, counts = np.unique(np.concatenate(dealt), return_counts=True)
    if indices[0] < 0 or indices[-1] >= n:
        return f"must return indices from 0 to {n - 1}, returned {indices[0]} to {indices[-1]}"
    if counts.max() > 1:
        often = f"index {indices[counts.argmax()]} {counts.max()} times"
        return f"must return no index twice, returned {often}"
    return ""


AnyPartitionSpec = Annotated[
    IidSpec | QuantitySpec | DirichletSpec | PathologicalSpec | NaturalSpec | OwnPartitionSpec,
    BY_KIND,
]
