"""
Where log events go and what a line looks like; called once, by the command that starts the process.
"""

from __future__ import annotations

import sys
from typing import TextIO

import structlog

from wva_core.errors import ParameterError

__all__ = ["LEVELS", "configure_logging"]

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Levels by name, as the standard library numbers them."""


def configure_logging(level: str = "info", *, as_json: bool = False, stream: TextIO | None = None) -> None:
    """
    Sends the log of the whole process to one stream, from one level on.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        as_json: one JSON object a line, for machines; else a line for people.
        stream: standard error, unless told.

    Raises:
        ParameterError: there is no such level.
    """
    lowest = LEVELS.get(level.lower())
    if lowest is None:
        raise ParameterError(
            "is not a level", object="logging", key="level", value=level, remedy=f"use one of {', '.join(LEVELS)}"
        )
    stream = sys.stderr if stream is None else stream
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if as_json:
        tracebacks: list[structlog.typing.Processor] = [structlog.processors.format_exc_info]
    else:
        tracebacks = []
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *tracebacks,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,  # so that a second call takes effect everywhere
    )
