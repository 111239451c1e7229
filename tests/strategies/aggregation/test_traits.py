import pytest

from strategies.aggregation import Bound, TooFewClientsError


def test_it_holds_from_the_stated_number_of_clients_on():
    bound = Bound("krum", 2, 3)
    bound(7, 2)
    with pytest.raises(TooFewClientsError) as error:
        bound(6, 2)
    assert str(error.value) == (
        "krum needs n >= 2f + 3 clients, got n=6 and f=2: "
        "sample at least 7 clients or lower n_malicious"
    )


def test_without_malicious_clients_there_is_nothing_to_lower():
    with pytest.raises(TooFewClientsError) as error:
        Bound("flame", 0, 2)(1)
    assert str(error.value) == "flame needs n >= 2 clients, got n=1: sample at least 2 clients"


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (Bound("a", 1, 1), "n >= f + 1"),
        (Bound("a", 4, 3), "n >= 4f + 3"),
        (Bound("a", 2, 1, counted="cf"), "n >= 2cf + 1"),
    ],
)
def test_it_reads_like_the_papers(bound, text):
    assert str(bound) == text
