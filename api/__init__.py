"""The control API of a running node: HTTP, events, and the client that the command line uses."""
