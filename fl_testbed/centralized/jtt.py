"""Just Train Twice: what a first model gets wrong counts more for the second."""

from strategies.shapes import Bool, Float, Tensor


def error_set(confidence: Float[Tensor, " n"], threshold: float = 0.5) -> Bool[Tensor, " n"]:
    """Mark the examples whose given label an identification model finds unlikely.

    For two classes a threshold of ½ marks what the model misclassifies.

    Args:
        confidence: I(x)_y.
        threshold: Examples with a smaller confidence are marked.

    References:
        Liu et al., Just Train Twice, ICML 2021.
    """
    return confidence < threshold


def upweighted(error: Bool[Tensor, " n"], factor: float) -> Float[Tensor, " n"]:
    """Return each example's weight in the second training, 1 + λ for those in the error set.

    The authors' code appends λ copies of the error set to the data: its examples are seen λ + 1
    times in an epoch, which becomes longer by these copies. Here they are drawn λ + 1 times as
    often in an epoch of the same length, so that lifts do not differ in how long they train.
    """
    return 1 + factor * error.double()
