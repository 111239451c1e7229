"""A Ray cluster of a command's own, which nobody else reaches and which ends with it."""

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
    """Let a local cluster listen on loopback alone, and answer this process and its own only.

    To be called before Ray is imported: it reads then whether its nodes may be of a cluster. On
    macOS and Windows they are not by default, and have a loopback address; here, whatever the
    system.

    Ray (2.60) asks for a token by default, and writes one that everybody can read into the user's
    home. Where one is there already it stays in use: the user's other clusters ask for it. An older
    one asks if it is told to before it is imported.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    if token := _own_token():
        os.environ.setdefault("RAY_AUTH_TOKEN", token)


def cores_allotted() -> int | None:
    """Return how many of this machine's cores a scheduler lets this process use; None where it may
    use all: Ray counts the machine's, or those of a container, but not these."""
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return None
    allotted = len(os.sched_getaffinity(0))
    return None if allotted == os.cpu_count() else allotted


@contextmanager
def ray_to_itself(scenarios: Iterable[Spec]) -> Iterator[None]:
    """Let a command use Ray inside, which sends the scenarios' own code by value, and end it.

    It ends also where a Ctrl-C came while it started: a notebook goes on.

    Raises:
        PoolError: If this process has a cluster already, as a notebook may: it knows one at a time.
            Or if workers would run other code than ours.
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
        ray.shutdown()


def refuse_other_code() -> None:
    """Refuse a folder with a package of ours or of the same name: Ray lets workers look there
    first, and they would run that one, the command what is installed.

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
    """Make a Ctrl-C of a SIGTERM that arrives while Ray decides what becomes of it, and take that
    decision back afterwards.

    Left alone, Ray ends the process, and its cluster may go on for a while.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        if end.code == signal.SIGTERM:
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():  # in others Ray decides nothing
            signal.signal(signal.SIGTERM, before)


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Let a Ctrl-C wait for the end of what must not be left half done, and a second one not.

    Ray that has half started cannot be ended: its processes stay, and its threads may crash.
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
    """Return this process's token, unless the user has one: the same each time, as Ray reads it
    once, though somebody else's Ray may write one in the meantime."""
    theirs = os.path.expanduser("~/.ray/auth_token")  # a container's user may have no home at all
    return None if os.path.exists(theirs) else secrets.token_hex(32)
