"""Logging to stderr: readable on a terminal, JSON elsewhere (structlog's advice). Nothing is written to stdout."""

from __future__ import annotations

from typing import TextIO

__all__ = ["set_up"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def set_up(level: str, form: str, stream: TextIO) -> None:
    """Send events of at least `level` to `stream`. `form`: auto, console or json."""
    import logging
    import os

    import structlog

    pretty = form == "console" or (form == "auto" and stream.isatty())
    colors = stream.isatty() and "NO_COLOR" not in os.environ
    tail: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *tail,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    # Libraries that use the standard library's logging (asyncio, qh3, uvicorn): the same stream and level.
    logging.basicConfig(level=max(_LEVELS[level], 30), stream=stream, format="%(levelname)s %(name)s %(message)s",
                        force=True)  # fmt: skip
