"""What holds for every test, however it was started."""

import os
import signal
import sys

# Tests start the program hundreds of times. It is compiled once, as an installed one is, also where that is off.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A runner that starts this in the background of a script leaves SIGINT ignored, and every child would inherit that:
# tests of Ctrl-C would wait for what never comes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
