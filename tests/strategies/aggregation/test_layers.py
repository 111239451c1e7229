from strategies.aggregation.layers import output_layer


def test_all_arrays_of_the_last_module_are_its_own_and_the_largest_comes_first():
    sizes = {"0.weight": 9, "1.bias": 2, "1.weight": 6, "1.scale": 2}
    layers, at = {}, 0
    for name, size in sizes.items():
        layers[name], at = slice(at, at + size), at + size
    expected = [layers[f"1.{name}"] for name in ("weight", "bias", "scale")]
    assert output_layer(layers, n_classes=2) == expected
