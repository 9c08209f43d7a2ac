"""What is kept of the history, and for how long: export and import, retention, disappearing messages."""
