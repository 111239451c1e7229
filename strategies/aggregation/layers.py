"""Which of a model's arrays are its output layer's."""

from collections.abc import Mapping


def output_layer(layers: Mapping[str, slice]) -> list[slice]:
    """Return where the arrays of the last module stand in a row: its weights, the largest, first.

    Args:
        layers: Where each array of parameters stands in a row, by its name.
    """
    module = list(layers)[-1].rpartition(".")[0]
    own = [place for name, place in layers.items() if name.rpartition(".")[0] == module]
    if not module:  # Flower numbers arrays without names: the last two are weights and bias
        own = own[-2:]
    return sorted(own, key=lambda place: place.stop - place.start, reverse=True)
