"""Replies on a device become the rows that replies on the host become."""

import pickle

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord

from strategies.flower_arrays import (
    FlatRecord,
    Layout,
    TensorView,
    UnusableReplyError,
    packed,
    record_of,
)
from strategies.update_rows import device_writer, host_writer

START = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.ones(2)}
LAYOUT = Layout.of(record_of({name: value.numpy() for name, value in START.items()}))
FLAT = np.array([1, 2, 3, 4, 1, 1], dtype=np.float32)
STAGED = torch.full((6,), torch.nan)


def moved_by(step: float) -> dict[str, torch.Tensor]:
    return {"w": START["w"] + step, "b": START["b"] - step}


def on_the_host(state: dict[str, torch.Tensor]) -> ArrayRecord:
    return packed(state, LAYOUT)


def named(state: dict[str, torch.Tensor]) -> ArrayRecord:
    return record_of({name: value.numpy() for name, value in state.items()})


def on_a_device(state: dict[str, torch.Tensor]) -> ArrayRecord:
    """As if this were one: what counts is that the matrix and the reply are on the same."""
    return FlatRecord(LAYOUT, torch.cat([value.flatten() for value in state.values()]))


@pytest.mark.parametrize("reply_of", [on_the_host, named, on_a_device])
def test_rows_and_norms_are_those_of_the_host(reply_of) -> None:
    expected, rows = torch.full((2, 6), torch.nan), torch.full((2, 6), torch.nan)
    on_host = host_writer(LAYOUT, expected, FLAT)
    there = device_writer(LAYOUT, rows, FLAT, STAGED)
    for row, step in ((1, 0.5), (0, -2.0)):
        norm = on_host(row, named(moved_by(step)))
        assert there(row, reply_of(moved_by(step))) == pytest.approx(norm)
        assert norm == pytest.approx(6**0.5 * abs(step))
    assert torch.equal(rows, expected)
    assert rows[0].tolist() == [-2, -2, -2, -2, 2, 2]


def test_a_reply_on_the_device_does_not_pass_the_host() -> None:
    staged = torch.full((6,), torch.nan)
    device_writer(LAYOUT, torch.empty(1, 6), FLAT, staged)(0, on_a_device(moved_by(1.0)))
    assert staged.isnan().all()


def test_a_reply_on_a_device_that_is_not_finite_has_no_finite_norm() -> None:
    broken = moved_by(1.0)
    broken["b"][1] = torch.nan
    write = device_writer(LAYOUT, torch.empty(1, 6), FLAT, STAGED)
    assert not np.isfinite(write(0, on_a_device(broken)))


def test_a_reply_on_a_device_that_was_tampered_with_is_checked_like_any_other() -> None:
    reply = on_a_device(moved_by(1.0))
    reply["w"] = TensorView(torch.zeros(3, 2))
    write = device_writer(LAYOUT, torch.empty(1, 6), FLAT, STAGED)
    with pytest.raises(UnusableReplyError, match=r"w has shape \[3, 2\], needs \[2, 2\]"):
        write(0, reply)


def test_tensors_on_a_device_are_numbers_to_whoever_asks_for_them() -> None:
    array = TensorView(torch.tensor([1.5, 2.5]))
    assert array.numpy().tolist() == [1.5, 2.5]
    assert array.dtype == "float32"
    assert array.shape == (2,)
    reply = on_a_device(moved_by(1.0))
    flat = np.empty(6, dtype=np.float32)
    for record in (reply, pickle.loads(pickle.dumps(reply))):
        LAYOUT.write_flat(record, flat)
        assert flat.tolist() == [2, 3, 4, 5, 0, 0]
