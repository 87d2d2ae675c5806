"""How a command speaks: text from elsewhere is shown, and a terminal never obeys it."""

from __future__ import annotations

import logging

import click

from unlearn.shown import sentence, shown, shown_lines


def say(text: str, err: bool = False, nl: bool = True) -> None:
    """Write text of one or several lines on stdout, or on stderr; nothing else in the commands writes any."""
    click.echo(shown_lines(text), err=err, nl=nl)


def warn(text: str) -> None:
    """Write a warning of one line on stderr."""
    say(f"unlearn: warning: {sentence(text)}", err=True)


class LogLines(logging.Formatter):
    """Lines of a log: one per message, whatever it quotes; tracebacks below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging calls it so
        """Format a record whose message is one line."""
        record.message = shown(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Format a record with its traceback."""
        return shown_lines(super().format(record))
