"""Nodes in containers: the compose file, and what runs the matrix in it."""
