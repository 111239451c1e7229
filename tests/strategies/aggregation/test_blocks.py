"""Working on several blocks of columns at a time changes no bit of a result."""

from functools import partial

import pytest
import torch

from strategies.aggregation import aggregate as sums
from strategies.aggregation import blocks, coordinate_median, geometric_median, mean, multi_krum
from strategies.aggregation.aggregate import dot_products


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CPU_BLOCK", 100)
    monkeypatch.setattr(sums, "CPU_SUM", 7)


@pytest.mark.parametrize(
    "rule",
    [mean, coordinate_median, geometric_median, partial(multi_krum, n_malicious=2)],
    ids=lambda rule: getattr(rule, "func", rule).__name__,
)
@pytest.mark.usefixtures("small_blocks")
def test_results_do_not_depend_on_the_cores_in_use(rule, monkeypatch: pytest.MonkeyPatch) -> None:
    updates = torch.randn(9, 501, generator=torch.Generator().manual_seed(0))
    results = []
    for cores in (1, 2, 3):
        monkeypatch.setattr(blocks, "_cores", cores)
        result = rule(updates)
        results.append((*result[:3], dot_products(updates, result.update)))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_what_blocks_give_comes_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_cores", 3)
    monkeypatch.setattr(blocks, "CPU_BLOCK", 20)
    updates = torch.arange(100.0).reshape(2, 50)
    given = blocks.each_block(updates, lambda columns: updates[0, columns].tolist())
    assert [value for block in given for value in block] == updates[0].tolist()


def test_an_error_in_a_block_is_raised_and_torch_keeps_its_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "_cores", 2)
    monkeypatch.setattr(blocks, "CPU_BLOCK", 10)
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        list(blocks.each_block(torch.ones(1, 100), lambda columns: 1 // 0))
    assert torch.get_num_threads() == before
