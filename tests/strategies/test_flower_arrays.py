import pickle

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
)
from torch import nn

from strategies.flower_arrays import (
    FlatRecord,
    Layout,
    UnusableReplyError,
    packed,
    record_of,
)


def linear() -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "bias": torch.tensor([5.0, 6.0])}


def layout_of(state: dict[str, torch.Tensor]) -> Layout:
    return Layout.of(record_of({name: value.numpy() for name, value in state.items()}))


def flat(record: ArrayRecord, layout: Layout) -> list[float]:
    return layout.flattened(record).tolist()


def test_a_packed_state_reads_as_any_other_record():
    layout = layout_of(linear())
    record = packed(linear(), layout)
    assert isinstance(record, FlatRecord)
    assert record["weight"].numpy().tolist() == [[1, 2], [3, 4]]
    assert flat(record, layout) == [1, 2, 3, 4, 5, 6]


def test_packing_copies_and_undoes_the_memory_order_of_images():
    weight = torch.arange(24.0).reshape(2, 3, 2, 2)
    state = {"weight": weight.to(memory_format=torch.channels_last)}
    record = packed(state, layout_of({"weight": weight}))
    state["weight"].zero_()
    assert flat(record, layout_of({"weight": weight})) == list(range(24))


def test_an_array_put_in_its_place_is_what_the_server_reads():
    layout = layout_of(linear())
    record = packed(linear(), layout)
    record["bias"] = Array(np.array([7.0, 8.0], dtype=np.float32))
    for copy in (record, pickle.loads(pickle.dumps(record))):
        assert flat(copy, layout) == [1, 2, 3, 4, 7, 8]
    del record["bias"]
    with pytest.raises(UnusableReplyError, match="missing bias"):
        flat(record, layout)


def test_a_flat_record_of_another_layout_is_refused():
    other = {"weight": torch.zeros(3, 2), "bias": torch.zeros(0)}
    with pytest.raises(UnusableReplyError, match="weight has shape"):
        flat(packed(other, layout_of(other)), layout_of(linear()))


def test_a_copy_of_a_flat_record_is_one_and_may_be_changed():
    layout = layout_of(linear())
    record = packed(linear(), layout)
    copied = record.copy()
    assert flat(copied, layout) == flat(pickle.loads(pickle.dumps(copied)), layout)
    copied["bias"] = record_of({"bias": np.array([9, 9], np.float32)})["bias"]
    assert flat(copied, layout) == [1, 2, 3, 4, 9, 9]
    assert flat(record, layout) == [1, 2, 3, 4, 5, 6]


def test_integer_arrays_are_kept_beside_parameters():
    state = {**linear(), "count": torch.tensor(3)}
    record = packed(state, layout_of(state))
    assert record["count"].numpy() == 3
    assert flat(record, layout_of(state)) == [1, 2, 3, 4, 5, 6]


def test_a_batch_norm_network_can_be_packed():
    state = nn.BatchNorm1d(2).state_dict()
    record = packed(state, layout_of(state))
    assert list(record) == list(state)


@pytest.mark.parametrize(
    "pack", [packed, lambda s, _: record_of({k: v.numpy() for k, v in s.items()})]
)
def test_records_cross_a_network_as_flowers_own(pack):
    record = pack(linear(), layout_of(linear()))
    contents = {key: value.deflate() for key, value in get_all_nested_objects(record).items()}
    received = inflate_object_from_contents(record.object_id, contents)
    assert type(received) is ArrayRecord
    assert type(received["bias"]) is Array
    assert received["weight"].numpy().tolist() == [[1, 2], [3, 4]]


def test_what_a_layout_works_out_once_does_not_travel_with_every_reply():
    layout = layout_of(linear())
    before = pickle.dumps(layout)
    assert [place for _, place in layout.pieces.values()] == [slice(0, 4), slice(4, 6)]
    assert pickle.dumps(layout) == before
    assert pickle.loads(before) == layout


def test_whoever_asks_for_numbers_gets_some_to_write_to():
    values = np.frombuffer(np.ones(6, np.float32).tobytes(), np.float32)  # read-only, as Ray's are
    record = FlatRecord(layout_of(linear()), values)
    for array in record.to_numpy_ndarrays():
        array += 1  # a client or evaluate_fn of Flower's may
    assert flat(record, layout_of(linear())) == [1] * 6
