"""Text from elsewhere (policies, reports, model folders, libraries) as it may be shown to a person.

A terminal obeys control characters, and an invisible or reordering one makes a line read as something that it is not.
Text is kept as it came and passes through here where it goes out: on a terminal, into a log, into a document.
"""

from __future__ import annotations

import re

LONGEST = 1000
"""Characters of a sentence about an error."""

_BREAKS = "\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_NEVER = (
    "\0-\x1f\x7f-\x9f"  # control characters, C0 and C1
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # what reorders a line, or begins another
    # What is drawn as nothing at all.
    "\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
    "\ud800-\udfff"  # halves of surrogate pairs, which no file and no terminal takes
    "\ufdd0-\ufdef" + "".join(f"{chr(0x10000 * plane + 0xFFFE)}-{chr(0x10000 * plane + 0xFFFF)}" for plane in range(17))
)  # fmt: skip
_HIDDEN = re.compile(f"[{_NEVER}]")
_HIDDEN_IN_LINES = re.compile(f"(?![\n\t])[{_NEVER}]")
# Scripts of India and emoji are written with joiners; between Latin, Greek or Cyrillic letters they only mislead.
_WRITTEN = "[\u0590-\u1dff\u2070-\ud7ff\ue000-\U0010ffff]"
_LOOSE_JOINER = re.compile(f"(?<!{_WRITTEN})[\u200c\u200d]|[\u200c\u200d](?!{_WRITTEN})")
_BREAK = re.compile(f"\\s*[{_BREAKS}]\\s*")


def shown(text: str) -> str:
    r"""Return text as one line in which every character can be seen: an escape character becomes ``\u001b``.

    Escapes are those of JSON, so that a JSON document stays the document that it is. A backslash stays one: what has
    been through here once does not change again, and two texts may look the same.
    """
    return _LOOSE_JOINER.sub(_escape, _HIDDEN.sub(_escape, text))


def shown_lines(text: str) -> str:
    """Return text of several lines as `shown` does, with its line feeds and tabs."""
    return _LOOSE_JOINER.sub(_escape, _HIDDEN_IN_LINES.sub(_escape, text))


def sentence(text: str, most: int = LONGEST) -> str:
    """Return text as one line of at most `most` characters: line breaks become spaces, and the middle is left out."""
    line = shown(_BREAK.sub(" ", text.strip()))
    if len(line) <= most:
        return line
    end = most // 3
    return f"{line[: most - end - 5]} ... {line[-end:]}"


def _escape(found: re.Match[str]) -> str:
    letter = found.group()
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return _SHORT.get(letter) or "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
