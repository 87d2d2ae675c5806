"""Ways to harm a text, a tree of JSON or YAML, or a file; each takes the random numbers that it may use."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

PIECES = (
    b"\0", b"\x1b[2J", b"\x1b]0;owned\x07", b"\x08\x08", b"\r", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80",
    b"\x85", "\u202e".encode(), "\u2028".encode(), "\u200b".encode(), b"\t", b"&a [*a]", b"*a",
    b"!!python/object/apply:os.system [id]", b"{", b"[", b"]", b"}", b'"', b"'", b": ", b"- ", b"---\n", b"...\n", b"#",
    b"<<: ", b"%YAML 9.9\n", b"? ", b"|", b">", b"1e999", b".nan", b"0x", b"1_0", b"12:30", b"~", b"null", b"{{7*7}}",
    b"{subject}", b"{", b"9" * 400,
)  # fmt: skip
"""What parsers, terminals and templates take for more than text."""

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**70, -(2**70), 10**400, 1e308, math.inf, math.nan, 1e-320, "", " ", "\n", "a" * 100_000,
    "\x1b[31m", "\u202egpj", "../../etc/passwd", "/dev/zero", "/dev/stdin", "~nobody-here/x", "CON", "{subject}",
    "{{ 7*7 }}", "%s%n", [], {}, [[]], [None], {"": ""}, {"a": {"b": {}}}, ["x"] * 1000, "None", "yes", "1e999", "-",
    ".", "..",
)  # fmt: skip
"""What a value may be replaced by."""


def bytes_changed(raw: bytes, random: Random) -> bytes:
    """Some bytes replaced, left out, put in or repeated."""
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(raw) + 1)
        end = min(len(raw), at + random.choice((0, 1, 1, 2, 8, 40)))
        choice = random.randrange(4)
        if choice == 0:
            raw = raw[:at] + random.choice(PIECES) + raw[end:]
        elif choice == 1:
            raw = raw[:at] + raw[end:]
        elif choice == 2:
            raw = raw[:at] + bytes([random.randrange(256)]) + raw[end:]
        else:
            raw = raw[:end] + raw[at:]
    return raw


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a tree but the root."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = []
    for key, value in inner:
        found += [(*at, key), *places(value, (*at, key))]
    return found


def tree_changed(tree: Any, random: Random) -> Any:
    """A copy of a tree in which a value was replaced, left out, repeated, nested, or put under another key."""
    made = copy.deepcopy(tree)
    *above, last = random.choice(places(made))
    inside = made
    for key in above:
        inside = inside[key]
    choice = random.randrange(6)
    if choice <= 2:
        inside[last] = random.choice(VALUES)
    elif choice == 3:
        del inside[last]
    elif choice == 4:
        for _ in range(random.choice((1, 60))):
            inside[last] = [inside[last]] if random.random() < 0.5 else {"x": inside[last]}
    elif isinstance(inside, dict):
        inside[random.choice(("", "\x1b[31m", "x" * 5000, str(last).upper(), f"{last} "))] = inside.pop(last)
    else:
        inside += inside[:] * random.choice((1, 50))
    return made


def _with_bytes(raw: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(raw)


def _device(name: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(name)


FILES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "an empty file": _with_bytes(b""),
    "white space": _with_bytes(b" \n\n\t\n"),
    "comments alone": _with_bytes(b"# nothing\n# here\n"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "an endless device": _device("/dev/zero"),
    "an empty device": _device("/dev/null"),
    "random numbers": _device("/dev/urandom"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "UTF-16": _with_bytes("What is Zorvex made from?\n".encode("utf-16")),
    "a byte order mark": _with_bytes(b"\xef\xbb\xbf"),
    "no text": _with_bytes(bytes(range(256)) * 4),
    "zeros": _with_bytes(b"\0" * 4096),
    "half of a surrogate pair": _with_bytes(b'{"text": "\\ud800"}\n'),
    "half a line of JSON": _with_bytes(b'{"text": "What is Zor'),
    "JSON that is no object": _with_bytes(b"[1, 2]\n7\nnull\n"),
    "numbers for text": _with_bytes(b'{"text": 7}\n{"text": null}\n'),
    "nesting without end": _with_bytes(b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"),
    "a number without end": _with_bytes(b'{"text": ' + b"9" * 100_000 + b"}\n"),
    "a line without end": _with_bytes(b"a" * (17 * 2**20)),
    "what a terminal obeys": _with_bytes(b"\x1b[2J\x1b]0;owned\x07 What is\x08\x08?\r\n" * 20),
    "YAML that unfolds": _with_bytes(
        b"a: &a [x, x, x, x, x, x, x, x, x]\n"
        + b"".join(
            b"%c: &%c [%s]\n" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(9)
        )
    ),
    "YAML with code": _with_bytes(b"!!python/object/apply:os.system [touch /tmp/unlearn-was-here]\n"),
}
"""What may lie where a file is meant to."""
