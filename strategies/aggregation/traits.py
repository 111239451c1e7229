"""Properties of a method beyond its maths, declared by a decorator on the function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from strategies.aggregation.aggregate import TooFewClientsError

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Bound:
    """The fewest clients that a rule can work on, n >= a f + b. Called, it checks a sample.

    Args:
        rule: The rule's name, for the message.
        per_malicious: a, clients needed for each one that the rule assumes malicious.
        more: b, clients needed in addition.
        counted: The symbol shown in place of f, where the bound does not count f itself.
    """

    rule: str
    per_malicious: int
    more: int
    counted: str = "f"

    def __call__(self, n: int, n_malicious: int = 0) -> None:
        """Raise TooFewClientsError if n clients are too few with f of them malicious."""
        least = self.per_malicious * n_malicious + self.more
        if n >= least:
            return
        got, lower = "", ""
        if self.per_malicious:
            got, lower = f" and {self.counted}={n_malicious}", " or lower n_malicious"
        raise TooFewClientsError(
            f"{self.rule} needs {self} clients, got n={n}{got}: "
            f"sample at least {least} clients{lower}"
        )

    def __str__(self) -> str:
        """Return the condition, such as ``n >= 2f + 3``."""
        if not self.per_malicious:
            return f"n >= {self.more}"
        times = self.per_malicious if self.per_malicious > 1 else ""
        return f"n >= {times}{self.counted} + {self.more}"


class RowByRow(NamedTuple):
    """A rule that averages scaled rows, and judges each by its own L2 norm alone."""

    scale: Callable[[float], float]
    suspicion: Callable[[float], float]


@dataclass(frozen=True)
class Traits:
    """Properties of a rule, a pre-aggregation or a reweighting; as a decorator it leaves the
    function itself unchanged."""

    bound: Bound | None = None
    """The fewest rows that it can work on."""
    selects: bool = False
    """Whether a weight of 0 means that the rule chose not to hear a client."""
    compares_pairs: bool = False
    """Whether it works on a figure for every pair of clients: five (n, n) matrices of float64 at
    most."""
    row_by_row: Callable[..., RowByRow | None] | None = None
    """Given the bound parameters, returns how each row is scaled if rows can be summed as they
    come."""
    takes_update_for_step: bool = False
    """Whether it goes by the model's past steps, and takes its own results for them."""

    def __call__(self, method: Method) -> Method:
        """Mark a function."""
        vars(method)["traits"] = self
        return method


def traits_of(method: object) -> Traits:
    """Return a method's traits, whatever is bound to its parameters."""
    return getattr(getattr(method, "func", method), "traits", Traits())
