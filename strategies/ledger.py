"""What a strategy records of a round: who was heard, and who was suspected."""

import logging
import math
from dataclasses import dataclass, field

LOG = logging.getLogger("flwr")  # where Flower's FedAvg reports failures
OK = "ok"
NO_REPLY = "failed: no reply"
NAN = math.nan


@dataclass
class ClientEntry:
    """What the ledger records of one client in one round."""

    client: int
    status: str = OK
    """``ok``, ``failed: …`` (no answer: the client takes no part in the round's figures) or
    ``rejected: …`` (an answer that cannot be used: it counts as weight 0)."""
    n_examples: int = 0
    prior_weight: float = NAN
    weight: float = NAN
    contribution: float = NAN
    suspicion: float = NAN
    update_norm: float = NAN
    train_loss: float = NAN
    lift: float = NAN
    """The client's weight after the reweighting, before the rule had its say."""
    believed_loss: float = NAN
    """The loss that a reweighting or a rule used, reported or measured; NaN where none did."""
    believed_confidence: float = NAN
    influence: float = NAN
    """Distance from the step taken to the one that would have been taken without the client, over
    the length of the former; only where a strategy is observed from outside
    (:mod:`strategies.observed`) with ``leave_one_out``."""

    def raw_weight(self, weight_by: str) -> float:
        """Return the client's prior weight before division by the sum of all."""
        return float(self.n_examples) if weight_by == "examples" else 1.0


@dataclass
class RoundLedger:
    """Who was heard and who was suspected in one round."""

    round_: int
    clients: list[ClientEntry] = field(default_factory=list)
    skipped: str = ""
    """Why the round left the model as it was; empty if it did not."""
    residual: float = NAN
    """Share of the step that inferred weights do not explain; NaN where weights are exact."""
    restarted: bool = False
    """Whether the next round starts from the initial model again."""

    def skip(self, reason: str) -> None:
        """Note why the round leaves the model as it is, and warn in Flower's log."""
        self.skipped = reason
        LOG.warning("aggregate_train: round %d moves nothing: %s", self.round_, reason)

    def set_priors(self, weight_by: str) -> None:
        """Divide the prior weight among the clients that answered; equally if none has any."""
        answered = [entry for entry in self.clients if not entry.status.startswith("failed")]
        raw = [entry.raw_weight(weight_by) for entry in answered]
        total = sum(raw)
        for entry, own in zip(answered, raw, strict=True):
            entry.prior_weight = own / total if total else 1 / len(answered)
