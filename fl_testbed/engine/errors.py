"""What goes wrong around a run, rather than in it."""


class PoolError(RuntimeError):
    """There are no workers to run on, Ray's or Flower's, or none can be started."""


class NobodyHeardError(RuntimeError):
    """No reply was of use in any round that the final model is made of: there is no result."""


class TrackerError(RuntimeError):
    """A tracker cannot be told of a run; the run itself is fine."""


class TakenError(RuntimeError):
    """Another command has a run in hand, or came first: its folder is left as it is."""
