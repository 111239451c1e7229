"""What can end a run besides its scenario."""


class PoolError(RuntimeError):
    """No Ray worker is left and none can be started."""


class TrackerError(RuntimeError):
    """A tracker cannot be told of a run; the run itself is fine."""
