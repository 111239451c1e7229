"""``fl-testbed``, and ``python -m fl_testbed``: the command line, once its libraries are there."""

import gc
import signal
import sys


def main() -> None:
    """Run the command line; a Ctrl-C in the seconds that torch takes to load ends it as later.

    So does SIGTERM, with which schedulers take a machine back.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from fl_testbed import cli

        cli.main()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
    finally:
        gc.freeze()  # Python looks for garbage a last time: in all of torch, for a second
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is said: no traceback any more


if __name__ == "__main__":
    main()
