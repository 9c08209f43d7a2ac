"""Self-chosen names: many may claim one, and whoever looks for it is shown all who do.

    found = await chat.names.look_up("alice")       # NameListing(claimants=(...), complete=True, ...)

docs/protocol/names.md says what is published; `Names` (service.py) is what applications call.
"""
