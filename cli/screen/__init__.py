"""The chat's screen on a terminal (Textual): conversations, messages, input, and what is behind them.

It is another face of `chat.Conversation`, which says what a typed line means, and uses public names of `p2pnode` and
`p2pnode.chat` only. Loaded when a screen is shown, not before: Textual takes a third of a second and 20 MB.
"""
