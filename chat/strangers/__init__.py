"""Conversations with strangers: a throw-away node for each, a lobby where those who are free are found, and reports.

docs/random.md is the user's guide, docs/protocol/random.md the wire format.
"""
