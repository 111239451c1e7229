"""Replies on a device become the rows that replies on the host become."""

import pickle

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from pretended_device import ELSEWHERE, PretendedDevice

from strategies.flower_arrays import (
    ArrayView,
    FlatRecord,
    Layout,
    UnusableReplyError,
    packed,
    record_of,
)
from strategies.update_rows import DeviceRows, HostRows

START = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.ones(2)}
LAYOUT = Layout.of(record_of({name: value.numpy() for name, value in START.items()}))
FLAT = np.array([1, 2, 3, 4, 1, 1], dtype=np.float32)


def moved_by(step: float) -> dict[str, torch.Tensor]:
    return {"w": START["w"] + step, "b": START["b"] - step}


def on_the_host(state: dict[str, torch.Tensor]) -> ArrayRecord:
    return packed(state, LAYOUT)


def named(state: dict[str, torch.Tensor]) -> ArrayRecord:
    return record_of({name: value.numpy() for name, value in state.items()})


def on_a_device(state: dict[str, torch.Tensor]) -> ArrayRecord:
    flat = torch.cat([value.flatten() for value in state.values()])
    return FlatRecord(LAYOUT, flat.to(ELSEWHERE))


@pytest.mark.parametrize("reply_of", [on_the_host, named, on_a_device])
def test_rows_and_norms_are_those_of_the_host(reply_of) -> None:
    expected = torch.full((3, 6), torch.nan)
    on_host = HostRows(LAYOUT, expected, FLAT)
    with PretendedDevice():
        there = DeviceRows(LAYOUT, torch.full((3, 6), torch.nan, device=ELSEWHERE), FLAT)
        for row, step in ((2, 0.5), (0, -2.0)):
            on_host.write(row, named(moved_by(step)))
            there.write(row, reply_of(moved_by(step)))
        rows, norms = there.matrix.cpu(), there.norms()
    for row, step in ((2, 0.5), (0, -2.0)):
        assert norms[row] == on_host.norms()[row] == pytest.approx(6**0.5 * abs(step))
    torch.testing.assert_close(rows, expected, rtol=0, atol=0, equal_nan=True)
    assert rows[0].tolist() == [-2, -2, -2, -2, 2, 2]


def test_the_host_waits_for_all_replies_on_the_device_together() -> None:
    with PretendedDevice() as device:
        rows = DeviceRows(LAYOUT, torch.empty(9, 6, device=ELSEWHERE), FLAT)
        replies = [on_a_device(moved_by(1.0)) for _ in range(9)]
        device.reads.clear()
        for row, reply in enumerate(replies):
            rows.write(row, reply)
        assert not device.reads
        rows.norms()
        assert [read.size for read in device.reads] == [9, 9]  # to look at them, and to tell them


def test_a_reply_that_is_not_finite_has_no_finite_norm() -> None:
    broken = moved_by(1.0)
    broken["b"][1] = torch.nan
    with PretendedDevice():
        rows = DeviceRows(LAYOUT, torch.empty(1, 6, device=ELSEWHERE), FLAT)
        rows.write(0, on_a_device(broken))
        assert not np.isfinite(rows.norms()[0])


def test_a_reply_on_a_device_that_was_tampered_with_is_checked_like_any_other() -> None:
    with PretendedDevice():
        reply = on_a_device(moved_by(1.0))
        reply["w"] = ArrayView(torch.zeros(3, 2, device=ELSEWHERE))
        rows = DeviceRows(LAYOUT, torch.empty(1, 6, device=ELSEWHERE), FLAT)
        with pytest.raises(UnusableReplyError, match=r"w has shape \[3, 2\], needs \[2, 2\]"):
            rows.write(0, reply)


def test_tensors_on_a_device_are_numbers_to_whoever_asks_for_them() -> None:
    array = ArrayView(torch.tensor([1.5, 2.5]))
    assert array.numpy().tolist() == [1.5, 2.5]
    assert array.dtype == "float32"
    assert array.shape == (2,)
    with PretendedDevice():
        reply = on_a_device(moved_by(1.0))
        pickled = pickle.dumps(reply)
    for record in (reply, pickle.loads(pickled)):
        with PretendedDevice():
            flat = LAYOUT.flattened(record)
        assert flat.tolist() == [2, 3, 4, 5, 0, 0]
