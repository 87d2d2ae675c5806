"""How a command speaks: text from elsewhere is shown, and a terminal never obeys it."""

from __future__ import annotations

import click

from unlearn.shown import sentence, shown_lines


def say(text: str, err: bool = False, nl: bool = True) -> None:
    """Write text of one or several lines on stdout, or on stderr; nothing else in the commands writes any."""
    click.echo(shown_lines(text), err=err, nl=nl)


def warn(text: str) -> None:
    """Write a warning of one line on stderr."""
    say(f"unlearn: warning: {sentence(text)}", err=True)
