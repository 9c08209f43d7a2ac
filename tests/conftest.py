"""What holds for every test, however it was started."""

import signal

# A runner that starts this in the background of a script leaves SIGINT ignored, and every child would inherit that:
# tests of Ctrl-C would wait for what never comes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
