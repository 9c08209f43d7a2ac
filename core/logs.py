"""Logging to stderr: readable on a terminal, JSON elsewhere (structlog's advice). Nothing is written to stdout."""

from __future__ import annotations

import sys
from typing import Any, TextIO, cast

__all__ = ["import_structlog_lightly", "set_up"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def import_structlog_lightly() -> None:
    """Import structlog without rich, which it loads when it finds it and which only its pretty tracebacks use.

    Rich would cost every node 7 MB of resident memory and 0.1 s of its start. Call it before anything else imports
    structlog; harmless later.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    modules = cast("dict[str, Any]", sys.modules)
    modules["rich"] = None  # makes `import rich` raise ImportError, which structlog expects
    try:
        import structlog  # noqa: F401 - for its effect
    finally:
        del modules["rich"]


def set_up(level: str, form: str, stream: TextIO) -> None:
    """Send events of at least `level` to `stream`. `form`: auto, console or json."""
    import logging
    import os

    import_structlog_lightly()
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
