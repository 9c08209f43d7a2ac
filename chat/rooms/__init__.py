"""Rooms: conversations of many, without a server (docs/protocol/rooms.md). Messages of a room are signed entries in the
logs of its members' devices; each member holds them all, and hands them on.
"""
