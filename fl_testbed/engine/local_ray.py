"""A command's own Ray cluster, which nobody else can reach and which ends with the command."""

import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import PathFinder
from types import FrameType

from fl_testbed.engine.errors import PoolError
from fl_testbed.scenario.own_specs import users_modules
from fl_testbed.scenario.spec import Spec
from fl_testbed.scenario.users_code import OUR_PACKAGES


def keep_others_out() -> None:
    """Make a local cluster listen on loopback alone, and answer only this process and its children.

    To be called before Ray is imported: on import it reads whether nodes may join a cluster. On
    macOS and Windows they may not by default, and so have a loopback address; this sets the same on
    every system.

    Ray 2.60 asks for a token by default, and writes one that everybody can read into the user's
    home. A token that is there already stays in use: the user's other clusters ask for it. Older
    versions ask for a token only if told to before they are imported.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    if token := _own_token():
        os.environ.setdefault("RAY_AUTH_TOKEN", token)


def cores_allotted() -> int | None:
    """Return how many of this machine's cores a scheduler lets this process use; None if all.

    Ray does not ask: it counts the cores of the machine, or of a container.
    """
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return None
    allotted = len(os.sched_getaffinity(0))
    return None if allotted == os.cpu_count() else allotted


@contextmanager
def ray_to_itself(scenarios: Iterable[Spec]) -> Iterator[None]:
    """Let a command use Ray inside the block, send users' own code by value, and end Ray after it.

    Ray is ended even if a Ctrl-C came while it started, since a notebook's process goes on.

    Raises:
        PoolError: If this process uses a cluster already, as in a notebook (Ray knows one at a
            time), or if workers would run other code than this.
    """
    import ray  # inline runs need no Ray
    from ray import cloudpickle

    if ray.is_initialized():
        text = "this process uses a Ray cluster already: call ray.shutdown() first, or run inline"
        raise PoolError(text)
    refuse_other_code()
    for scenario in scenarios:
        for module in users_modules(scenario):
            cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        with ctrl_c_waits():  # where Ray has ended by half, it ends this process, with status 1
            ray.shutdown()


def refuse_other_code() -> None:
    """Refuse to start in a folder that holds another package by the name of one of ours: Ray's
    workers look there first and would run that one, not the code that the command runs.

    Raises:
        PoolError: If the current folder has one.
    """
    for name in OUR_PACKAGES:
        found = PathFinder.find_spec(name, [os.getcwd()])
        ours = str(sys.modules[name].__file__)
        if found and found.origin and not os.path.samefile(found.origin, ours):
            raise PoolError(
                f"Ray's workers would run {found.origin} in place of {ours}: start in another "
                "folder, or run inline"
            )


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Turn a SIGTERM into a Ctrl-C while Ray's signal handler is in place, and restore the earlier
    handler afterwards.

    Otherwise Ray ends the process, and its cluster may live on for a while.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        if end.code == signal.SIGTERM:
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():  # Ray sets no handler in others
            signal.signal(signal.SIGTERM, before)


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Delay a Ctrl-C until the end of the block, which must not be left half done; a second one
    interrupts at once.

    A Ray that has half started cannot be ended: its processes stay, and its threads may crash.
    """
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in a script's &
    if not is_heard or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(signum)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


@cache
def _own_token() -> str | None:
    """Return this process's token, or None if the user has one. Cached, since Ray reads it once,
    while another Ray may write one for the user in the meantime."""
    theirs = os.path.expanduser("~/.ray/auth_token")  # a container's user may have no home at all
    return None if os.path.exists(theirs) else secrets.token_hex(32)
