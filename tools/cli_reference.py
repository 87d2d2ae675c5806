"""The command line's help as a page of the documentation: `python -m tools.cli_reference` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from unlearn.cli import cli

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
WIDTH = 100
"""Columns of the help texts."""


def sections(command: click.Command, name: str, above: click.Context | None = None) -> Iterator[str]:
    """The help of the command, and of all commands below it, each as a section."""
    settings = {**command.context_settings, "terminal_width": WIDTH}
    with click.Context(command, above, name, **settings) as context:
        yield f"## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n"
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                yield from sections(command.commands[below], below, context)


def page() -> str:
    """The whole page, as Markdown."""
    opening = (
        "# The command line\n\n"
        "Each command's `--help`, written by `python -m tools.cli_reference`. "
        "[Commands](../guides/commands.md) says what they are for.\n"
    )
    return "\n".join([opening, *sections(cli, "unlearn")])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
