"""Who holds what: clients by role, and how examples are dealt to them."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fl_testbed.data import Population, dealing
from fl_testbed.data.dealing import Dealer, Shares
from fl_testbed.scenario.spec import ClientCount, Fraction, Spec


class ClientsSpec(Spec):
    """How many clients of each role, how many examples each holds, and of whom."""

    honest_majority: ClientCount  # clients; ids run through the roles in this order
    honest_minority: ClientCount  # clients that hold the minority's examples
    poisoned: ClientCount  # clients that attack
    examples_each: PositiveInt | None = None  # none: all examples are dealt
    overlap: bool = False  # whether two clients may hold the same example
    minority_concentration: Fraction = 1.0  # 1: minority data in its own clients, 0: in all alike
    minority_mix: dict[str, NonNegativeFloat] | None = None  # groups in a minority client's data
    poisoned_hold: Literal["majority", "minority"] = "majority"  # whose kind of data, before poison

    @property
    def population(self) -> Population:
        """The clients by role."""
        return Population(self.honest_majority, self.honest_minority, self.poisoned)


class PartitionSpec(Spec):
    """What every way of dealing answers."""

    deal: ClassVar[Callable[..., Shares]]
    by_natural_client: ClassVar[bool] = False
    """Whether natural clients stay whole."""
    can_overlap: ClassVar[bool] = False
    """Whether each client can be dealt to without regard to the others."""

    def build(self) -> Dealer:
        """Return the way of dealing, its parameters bound."""
        return partial(type(self).deal, **self.model_dump(exclude={"kind"}))


class IidSpec(PartitionSpec):
    """Random examples, the same number for each client."""

    kind: Literal["iid"] = "iid"
    can_overlap: ClassVar[bool] = True
    deal = staticmethod(dealing.iid)


class QuantitySpec(PartitionSpec):
    """Random examples, in numbers drawn from a Dirichlet distribution."""

    kind: Literal["quantity"]
    alpha: PositiveFloat  # the smaller, the more sizes differ
    min_examples: PositiveInt = 10  # in the smallest shard
    deal = staticmethod(dealing.quantity_skew)


class DirichletSpec(PartitionSpec):
    """Classes in proportions drawn from a Dirichlet distribution."""

    kind: Literal["dirichlet"]
    alpha: PositiveFloat  # per class
    min_examples: PositiveInt = 10  # the smallest shard there may be, without examples_each
    can_overlap: ClassVar[bool] = True
    deal = staticmethod(dealing.dirichlet)


class PathologicalSpec(PartitionSpec):
    """Examples sorted by class and cut into shards, of which each client gets a few."""

    kind: Literal["pathological"]
    shards_per_client: PositiveInt = 2
    deal = staticmethod(dealing.pathological)


class NaturalSpec(PartitionSpec):
    """The dataset's own clients, such as writers."""

    kind: Literal["natural"]
    merge: bool = False  # several natural clients to one, until it has examples_each
    min_examples: PositiveInt = 10  # natural clients with fewer are left out, without examples_each
    by_natural_client: ClassVar[bool] = True
    deal = staticmethod(dealing.natural)


AnyPartitionSpec = Annotated[
    IidSpec | QuantitySpec | DirichletSpec | PathologicalSpec | NaturalSpec,
    Field(discriminator="kind"),
]
