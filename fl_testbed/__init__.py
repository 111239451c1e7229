"""The harness: scenarios in, run folders out. ``fl_testbed.cli`` is the command line."""
