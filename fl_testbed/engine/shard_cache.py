"""Shards made once and kept where clients train."""

from collections.abc import Callable

import torch

from clients.shard import Shard

CACHE_BYTES = 512 * 2**20  # on a CPU, where the dataset itself is in memory already
CACHE_SHARE = 0.25  # of a GPU's memory


class ShardCache:
    """Keeps the most recently used shards on a device, as many as fit.

    Args:
        make: Returns a client's shard on the host, clean or poisoned, by client and whether clean.
        device: Where to keep shards.
        capacity: Bytes to keep at most.
    """

    def __init__(
        self, make: Callable[[int, bool], Shard], device: torch.device, capacity: int
    ) -> None:
        self._make, self._device, self._capacity = make, device, capacity
        self._shards: dict[tuple[int, bool], Shard] = {}
        self._bytes = 0

    def get(self, client: int, *, clean: bool = True) -> Shard:
        """Return a client's shard on the device."""
        key = client, clean
        if key in self._shards:
            self._shards[key] = self._shards.pop(key)  # now the most recently used
            return self._shards[key]
        shard = self._make(client, clean).to(self._device)
        self._bytes += _bytes_of(shard)
        self._shards[key] = shard
        while self._bytes > self._capacity and len(self._shards) > 1:
            oldest = next(iter(self._shards))
            self._bytes -= _bytes_of(self._shards.pop(oldest))
        return shard


def cache_bytes(device: torch.device) -> int:
    """Return how many bytes of shards to keep on a device."""
    if device.type == "cpu":
        return CACHE_BYTES
    return int(CACHE_SHARE * torch.cuda.get_device_properties(device).total_memory)


def _bytes_of(shard: Shard) -> int:
    return sum(column.numel() * column.element_size() for column in shard[:4])
