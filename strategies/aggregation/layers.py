"""Which of a model's arrays are its output layer's."""

from collections.abc import Mapping


class OutputLayerError(ValueError):
    """A model whose last module cannot be its output layer."""


def output_layer(layers: Mapping[str, slice], n_classes: int = 1) -> list[slice]:
    """Return where the arrays of the last module stand in a row: its weights, the largest, first.

    Args:
        layers: Where each array of parameters stands in a row, by its name.
        n_classes: The number of its neurons, for rules that look at each of them.

    Raises:
        OutputLayerError: If its weights cannot be divided evenly among the neurons.
    """
    module = list(layers)[-1].rpartition(".")[0]
    own = [place for name, place in layers.items() if name.rpartition(".")[0] == module]
    if not module:  # Flower numbers arrays without names: the last two are weights and bias
        own = own[-2:]
    own.sort(key=lambda place: place.stop - place.start, reverse=True)
    n_weights = own[0].stop - own[0].start
    if n_weights % n_classes:
        raise OutputLayerError(
            "the rule takes the module that is declared last for the output layer, and "
            f"{n_classes} classes do not share the {n_weights:,} weights of "
            f"{module or 'the last two arrays'} evenly"
        )
    return own
