"""What a chat template has to do with thoughts: the marks of their blocks, and the ways in which it can be asked.

Everything is found from the tokenizer in hand: what its template writes around thoughts that it is given, what marks
stand in the template's text and among the tokens, and which arguments of the template change what is asked.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unlearn.model.encoding import Tokenizer
from unlearn.model.templates import attempted, headed
from unlearn.thoughts import Marks, marks_in, unclosed

QUIET = "quiet"
"""Name of the way in which a template is told to leave thoughts out."""
Arguments = Mapping[str, bool | int | str]
"""Of a chat template, by name."""
SWITCHES: tuple[tuple[str, bool | int | str, str], ...] = (
    ("enable_thinking", False, QUIET),
    ("enable_thinking", True, "thinking"),
    ("thinking", False, QUIET),
    ("thinking", True, "thinking"),
    ("enable_reasoning", False, QUIET),
    ("enable_reasoning", True, "thinking"),
    ("thinking_budget", 0, QUIET),
    ("reasoning_effort", "none", QUIET),
    ("reasoning_effort", "low", "low"),
)
"""Arguments by which templates turn thoughts off or on, a value of each, and the way's name."""
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Keys under which templates take a turn's thoughts."""
_THOUGHT, _ANSWER = "unlearnthought", "unlearnanswer"
_ASKED = {"role": "user", "content": "?"}


@dataclass(frozen=True)
class Way:
    """One way in which a server can ask through a chat template."""

    name: str
    """Empty for the template as it stands."""
    tokenizer: Tokenizer
    """The tokenizer whose template asks in this way: everything that is built from it does."""
    given: Arguments = field(default_factory=dict)
    """What a server gives the template to ask so."""

    @property
    def suffix(self) -> str:
        """What tells a prompt's key in this way from the others."""
        return f"/{self.name}" if self.name else ""


def ways(tokenizer: Tokenizer) -> tuple[Way, ...]:
    """The template as it stands, and one way for each argument that changes what is asked; one without a template."""
    found = [Way("", tokenizer)]
    text = template_text(tokenizer)
    rendered = {opened(tokenizer)} if any(name in text for name, *_ in SWITCHES) else set()
    for argument, value, name in SWITCHES:
        if argument not in text or name in {way.name for way in found}:
            continue
        other = _given(tokenizer, argument, value)
        asked = opened(other)
        if asked and asked not in rendered:
            rendered.add(asked)
            found.append(Way(name, other, {argument: value}))
    return tuple(found)


def quietest(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer that asks without thoughts, where its template can; else the one that is given."""
    return next((way.tokenizer for way in ways(tokenizer) if way.name == QUIET), tokenizer)


def way_of(asked: Sequence[Way], text: str) -> Way:
    """The way in which a chat prompt was made, by what stands behind the last message; the first if none tells."""
    tails = [(len(tail), way) for way in asked if (tail := _tail(way.tokenizer)) and text.endswith(tail)]
    return max(tails, key=lambda row: row[0])[1] if tails else asked[0]


def marks_of(tokenizer: Tokenizer) -> tuple[Marks, ...]:
    """The marks of reasoning blocks that a chat template or its tokenizer knows; none without a template."""
    text = template_text(tokenizer)
    if not text:
        return ()
    tokens = (token.content for token in tokenizer.added_tokens_decoder.values())
    return tuple(dict.fromkeys((*_written(tokenizer, text), *marks_in("\n".join((text, *tokens))))))


def leaving(tokenizer: Tokenizer, asked: str, begun: str = "") -> str:
    """How a reply gets out of the reasoning block in which a prompt and its own beginning end; empty if in none."""
    block = unclosed(asked, begun, marks_of(tokenizer))
    gap = "\n" if (asked + begun).endswith("\n") else "\n\n"
    return f"{gap}{block.closes}\n\n" if block else ""


def decoded(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """The texts of some replies without special tokens, but for those that mark a reasoning block."""
    written = "".join(mark for pair in marks_of(tokenizer) for mark in pair)
    special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    dropped = {i for i, content in special.items() if content not in written}
    if len(dropped) == len(special):
        return list(tokenizer.batch_decode(rows, skip_special_tokens=True))
    return list(tokenizer.batch_decode([[i for i in row if i not in dropped] for row in rows]))


def template_text(tokenizer: Tokenizer) -> str:
    """The text of the chat template, of the default one where they have names; empty without one."""
    template = tokenizer.chat_template or ""
    return str(template.get("default", "") if isinstance(template, dict) else template)


def opened(tokenizer: Tokenizer, content: str = "?") -> str:
    """A question as the template asks it, up to where the reply begins; empty where the template refuses."""
    return attempted(tokenizer, [{**_ASKED, "content": content}], True)


def _tail(tokenizer: Tokenizer) -> str:
    return opened(tokenizer, _ANSWER).rpartition(_ANSWER)[2]


def _given(tokenizer: Tokenizer, argument: str, value: bool | int | str) -> Tokenizer:
    """A copy whose template takes an argument for given; it shares the vocabulary."""
    made = copy.copy(tokenizer)
    # Jinja reads the literals of JSON.
    made.chat_template = headed(tokenizer, f"{{% set {argument} = {json.dumps(value)} %}}")
    return made


def _written(tokenizer: Tokenizer, text: str) -> tuple[Marks, ...]:
    """The marks that a template writes around thoughts that it is given with a turn."""
    if not any(key in text for key in THOUGHTS):
        return ()
    turn = {"role": "assistant", "content": _ANSWER, **dict.fromkeys(THOUGHTS, _THOUGHT)}
    begun = opened(tokenizer)
    full = attempted(tokenizer, [_ASKED, turn], False)
    if not (begun and full.startswith(begun)):
        return ()
    before, _, after = full[len(begun) :].partition(_THOUGHT)
    between, _, _ = after.partition(_ANSWER)
    pair = Marks(before.strip(), between.strip())
    return (pair,) if all(pair) and _ANSWER in after and _THOUGHT not in after else ()
