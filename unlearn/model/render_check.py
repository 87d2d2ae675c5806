"""Render a chat template within bounds of time and memory, in a process of its own; run by path, not imported.

A template is a program by whoever published the model. Its loops, powers and repetitions may take years or all memory,
inside C code that no signal or exception can stop; a process can be stopped. What is rendered is thrown away: only
whether it ends counts, so errors are no news here.

Standard input holds JSON: ``template``, ``chats`` (lists of turns), ``variables``, ``seconds`` and ``bytes``.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """``{% generation %}``, with which templates mark what the assistant writes: its body as it stands."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """Parse one block."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def refuse(message: str) -> NoReturn:
    """Stand in for ``raise_exception``."""
    raise TemplateError(message)


def main() -> None:
    """Render every chat, as transformers would."""
    given: dict[str, Any] = json.load(sys.stdin)
    seconds, size = int(given["seconds"]), int(given["bytes"])
    with contextlib.suppress(ValueError, OSError):  # a limit that this system does not have
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    room = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    room.filters["tojson"] = lambda value, **_: json.dumps(value)
    room.globals |= {"raise_exception": refuse, "strftime_now": datetime.now().strftime}
    for turns in given["chats"]:
        try:
            room.from_string(given["template"]).render(
                messages=turns, add_generation_prompt=True, tools=None, documents=None, **given["variables"]
            )
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S112 - whatever a stranger's program raises, it has ended
            continue


if __name__ == "__main__":
    main()
