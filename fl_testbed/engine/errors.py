"""What can end a run besides its scenario."""


class PoolError(RuntimeError):
    """No Ray worker is left and none can be started."""
