"""The clients of each role."""

from dataclasses import dataclass

from clients.shard import Role


@dataclass(frozen=True)
class Population:
    """How many clients each role has. Client ids run through the roles in this order."""

    honest_majority: int
    honest_minority: int
    poisoned: int

    def __len__(self) -> int:
        return self.honest_majority + self.honest_minority + self.poisoned

    def role(self, client: int) -> Role:
        """Return a client's role."""
        if client < self.honest_majority:
            return Role.HONEST_MAJORITY
        if client < self.honest_majority + self.honest_minority:
            return Role.HONEST_MINORITY
        return Role.POISONED

    def clients(self, role: Role) -> range:
        """Return the ids of a role's clients."""
        first_minority = self.honest_majority
        first_poisoned = first_minority + self.honest_minority
        return {
            Role.HONEST_MAJORITY: range(first_minority),
            Role.HONEST_MINORITY: range(first_minority, first_poisoned),
            Role.POISONED: range(first_poisoned, len(self)),
        }[role]
