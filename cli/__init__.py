"""The command line: what users type, and the screen."""
