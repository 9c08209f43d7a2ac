"""Files and folders between people: offered, accepted, resumed after any break, checked before they get their names.

    transfer = await chat.files.send(chat.resolve("alice"), "holiday/")     # Transfer(state="preparing", ...)
    await chat.files.accept(transfer.id)                                    # on the other side

docs/protocol/files.md says what goes over the wire; `Files` (service.py) is what applications call.
"""
