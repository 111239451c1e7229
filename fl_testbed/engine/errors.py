"""Errors around a run, rather than in it."""


class PoolError(RuntimeError):
    """There are no workers to run on (Ray's or Flower's), or none can be started."""


class NobodyHeardError(RuntimeError):
    """No reply was usable in any round behind the final model: there is no result."""


class TrackerError(RuntimeError):
    """A tracker cannot be reached or fails; the run itself is fine."""


class TakenError(RuntimeError):
    """Another command is writing this run or has finished it, or its folder was removed: the folder
    is left as it is."""
