"""Entry point of ``fl-testbed`` and ``python -m fl_testbed``; the command line is imported late."""

import gc
import signal
import sys


def main() -> None:
    """Run the command line; a Ctrl-C ends it cleanly even in the seconds that torch takes to load.

    So does a SIGTERM, which schedulers send before they take a machine back.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from fl_testbed import cli

        cli.main()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
    finally:
        gc.freeze()  # else Python's last garbage collection spends a second on torch
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a later Ctrl-C shows no traceback


if __name__ == "__main__":
    main()
