"""What contacts say of themselves, and what mutual contacts pass on of it: presence, a status text, addresses.

    chat.gossip.status("gone fishing")          # everybody who is here sees it
    await chat.gossip.set_invisible(True)       # everybody sees us leave
    told = chat.gossip.told_of(peer)            # what a device said last, by whichever way it came

docs/protocol/gossip.md says what goes over the wire; `Gossip` (service.py) is what applications call.
"""
