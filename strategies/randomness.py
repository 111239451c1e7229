"""Random numbers that depend on what they are for, never on which process draws them."""

from enum import IntEnum, unique

import numpy as np


@unique
class Purpose(IntEnum):
    """What a stream of random numbers is for. The values are part of every run: never renumber."""

    PARTITION = 1
    MODEL = 2
    SAMPLING = 3
    TRAINING = 4
    POISON = 5
    TRIGGER = 6
    SERVER_TRAINING = 7
    AGGREGATION = 8
    ATTACK = 9
    BOOTSTRAP = 10
    POISON_PLAN = 11
    LESSON = 12
    DROPOUT = 13
    PROBE = 14
    LEARNT_TRIGGER = 15


def generator(seed: int, purpose: Purpose, *where: int) -> np.random.Generator:
    """Return the stream of one purpose at one place. numpy treats no place and place 0 alike.

    Args:
        seed: The scenario's seed, >= 0.
        purpose: What the numbers are for.
        where: The round and the client id, in this order, as far as they apply.
    """
    return np.random.default_rng([seed, int(purpose), *where])
