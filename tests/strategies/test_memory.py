from types import SimpleNamespace

import pytest
import torch
from pretended_device import ELSEWHERE, PretendedDevice

from strategies.memory import can_go_on, recall, remember


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_what_is_remembered_is_recalled_by_client():
    memory = remember({}, "loss", torch.tensor([9, 2]), doubles(0.9, 0.2))
    recalled = recall(memory, "loss", torch.tensor([2, 5, 9]), default=-1.0)
    assert recalled.tolist() == [0.2, -1.0, 0.9]


def test_new_values_replace_old_ones_and_others_stay():
    memory = remember({}, "loss", torch.tensor([1, 2, 3]), doubles(1, 2, 3))
    memory = remember(memory, "loss", torch.tensor([4, 2]), doubles(40, 20))
    assert memory["loss.clients"].tolist() == [1, 2, 3, 4]
    recalled = recall(memory, "loss", torch.tensor([1, 2, 3, 4]), default=-1.0)
    assert recalled.tolist() == [1, 20, 3, 40]


def test_remembering_leaves_the_old_memory_alone():
    old = remember({}, "loss", torch.tensor([1]), doubles(1))
    remember(old, "loss", torch.tensor([1]), doubles(2))
    assert recall(old, "loss", torch.tensor([1]), default=-1.0).tolist() == [1]


def test_names_do_not_mix():
    memory = remember({}, "loss", torch.tensor([1]), doubles(1))
    memory = remember(memory, "flag", torch.tensor([1]), doubles(7))
    assert recall(memory, "loss", torch.tensor([1]), default=-1.0).tolist() == [1]


def test_nobody_can_be_remembered_too():
    memory = remember({}, "flag", torch.tensor([], dtype=torch.int64), doubles())
    assert recall(memory, "flag", torch.tensor([3]), default=0.0).tolist() == [0]


def test_a_client_beyond_the_last_one_known_is_new():
    memory = remember({}, "loss", torch.tensor([1, 2]), doubles(1, 2))
    assert recall(memory, "loss", torch.tensor([3, 0]), default=5.0).tolist() == [5, 5]


def test_whole_vectors_can_be_remembered():
    memory = remember({}, "history", torch.tensor([7, 3]), torch.tensor([[7.0, 70.0], [3.0, 30.0]]))
    recalled = recall(memory, "history", torch.tensor([3, 5]), 0.0, (2,), torch.float64)
    assert recalled.tolist() == [[3.0, 30.0], [0.0, 0.0]]


def test_what_is_recalled_can_be_changed_without_changing_the_memory():
    memory = remember({}, "loss", torch.tensor([1, 2]), doubles(1, 2))
    recall(memory, "loss", torch.tensor([1, 2]), default=0.0).add_(5)
    assert recall(memory, "loss", torch.tensor([1, 2]), default=0.0).tolist() == [1, 2]


@pytest.mark.parametrize("clients", [[3, 5, 9], [5, 4]])
def test_what_is_remembered_on_a_device_stays_there(clients: list[int]) -> None:
    with PretendedDevice() as device:
        values = torch.arange(6.0).view(3, 2).to(ELSEWHERE)
        memory = remember({}, "history", torch.tensor([3, 5, 9]), values)
        recalled = recall(
            memory, "history", torch.tensor(clients), 0.0, (2,), torch.float32, ELSEWHERE
        )
        assert not device.reads
        expected = {3: [0.0, 1.0], 5: [2.0, 3.0], 9: [4.0, 5.0]}
        assert recalled.tolist() == [expected.get(client, [0.0, 0.0]) for client in clients]


def test_only_what_both_says_and_takes_up_its_state_can_go_on():
    says, takes_up = {"state_dict": dict}, {"load_state_dict": print}
    assert can_go_on(SimpleNamespace(**says, **takes_up))
    assert not can_go_on(SimpleNamespace(**says))
    assert not can_go_on(SimpleNamespace(**takes_up))
