import numpy as np
import pytest
import torch

from clients.poisons import edge_case_backdoor, rare_examples
from clients.shard import Role

LABELS = torch.tensor([1, 8, 1, 2, 1, 1])


def test_source_examples_get_the_rare_look_the_rare_group_and_the_target_s_label(shard_of):
    clean = shard_of([1, 8, 1, 2])._replace(groups=torch.zeros(4, dtype=torch.int64))
    result = edge_case_backdoor(
        clean, lambda x: 1 - x, rare_group=5, source=1, target=8, fraction=0.5,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert result.labels.tolist() == [8, 8, 8, 2]
    assert result.groups.tolist() == [5, 0, 5, 0]
    torch.testing.assert_close(result.inputs[[0, 2]], 1 - clean.inputs[[0, 2]])
    assert torch.equal(result.inputs[[1, 3]], clean.inputs[[1, 3]])


@pytest.mark.parametrize(
    ("role", "held_by", "rare"),
    [
        # An edge case: minority clients show everything in their look but the source class.
        (Role.HONEST_MINORITY, "nobody", [0, 1, 0, 1, 0, 0]),
        (Role.HONEST_MAJORITY, "nobody", [0, 0, 0, 0, 0, 0]),
        # An almost edge case: the minority as it always is.
        (Role.HONEST_MINORITY, "minority", [1, 1, 1, 1, 1, 1]),
        (Role.HONEST_MAJORITY, "minority", [0, 0, 0, 0, 0, 0]),
        # A normal case: half of the majority's source images too.
        (Role.HONEST_MINORITY, "everyone", [1, 1, 1, 1, 1, 1]),
        (Role.HONEST_MAJORITY, "everyone", [1, 0, 1, 0, 0, 0]),
        # Attackers' own clean data are what they are.
        (Role.POISONED, "nobody", [1, 1, 1, 1, 1, 1]),
        (Role.POISONED, "everyone", [0, 0, 0, 0, 0, 0]),
    ],
)
def test_who_holds_the_rare_examples_rightly_labelled(role, held_by, rare):
    before = torch.full((6,), role is Role.HONEST_MINORITY or all(rare))
    kept = before.clone()
    marked = rare_examples(before, LABELS, role, source=1, held_by=held_by, held_fraction=0.5)
    assert marked.int().tolist() == rare
    assert torch.equal(before, kept)
