"""How few clients a rule can work on."""

from dataclasses import dataclass

from strategies.aggregation.aggregate import TooFewClientsError


@dataclass(frozen=True)
class Bound:
    """The fewest clients that a rule can work on, n >= a f + b. Called, it checks a sample.

    Args:
        rule: The rule's name, for the message.
        per_malicious: a, clients needed for each one that the rule assumes malicious.
        more: b, clients needed beside them.
        counted: What takes the place of f where the rule does not count it plainly.
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
