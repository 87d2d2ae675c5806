"""A model's chat template: looked at once when it comes from a file, and rendered in one place.

It is a program by whoever published the model, and may fail in any way; every way ends in one sentence.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from jinja2 import TemplateError, TemplateSyntaxError

from unlearn.errors import ModelError
from unlearn.model.encoding import Tokenizer
from unlearn.shown import sentence

Turn = Mapping[str, str]
"""``{"role", "content"}`` of one turn of a chat."""

SECONDS, MEMORY = 5, 1 << 30
"""Of computing, and bytes, for some chats that render in a millisecond."""
MARK = "unlearn"
"""A text that is looked for in what a template renders."""
_MOST = 200
"""Characters of a template's own message that are shown."""


def rendered(tokenizer: Tokenizer, turns: Sequence[Turn], opened: bool = True) -> str:
    """Turns of a chat as the text that a model reads.

    Args:
        opened: whether an assistant's reply is to follow.

    Raises:
        ModelError: the template refuses the turns, fails on them, or is none. What a turn says is not told.
    """
    try:
        return _render(tokenizer, turns, opened)
    except Exception as problem:  # noqa: BLE001 - a stranger's program: whatever it raises says the same
        raise ModelError(_refusal(tokenizer, turns, opened, problem)) from None


def attempted(tokenizer: Tokenizer, turns: Sequence[Turn], opened: bool) -> str:
    """As `rendered`; empty where the template refuses the turns."""
    try:
        return rendered(tokenizer, turns, opened)
    except ModelError:
        return ""


def headed(tokenizer: Tokenizer, first: str) -> str | dict[str, str]:
    """The chat template, or each of several, behind Jinja that is run before it."""
    # Jinja drops a new line after a block, but not after an output.
    head, template = first + "{{ '' }}", tokenizer.chat_template
    if isinstance(template, dict):
        return {name: head + text for name, text in template.items()}
    return head + str(template)


def checked(tokenizer: Tokenizer) -> None:
    """Look at a tokenizer's chat template before it is used; nothing is done where there is none.

    Raises:
        ModelError: it is no text, has names none of which is ``default``, cannot be read or rendered, takes too long or
            too much memory, leaves out the question, or opens no reply.
    """
    template = tokenizer.chat_template
    if not template:
        return
    if isinstance(template, dict):
        if "default" not in template:
            names = sentence(", ".join(sorted(map(str, template))), _MOST)
            raise ModelError(
                f"this model has chat templates called {names}, and none called default; name one so"
            )
        template = template["default"]
    if not isinstance(template, str):
        kind = type(template).__name__
        raise ModelError(f"the chat template of this model is no text but of type {kind}; mend its tokenizer")
    _ends(template, tokenizer.special_tokens_map)
    question = {"role": "user", "content": MARK}
    opened = rendered(tokenizer, [question])
    if MARK not in opened.lower():
        raise ModelError("the chat template of this model leaves out what the user says; mend the template")
    if opened == rendered(tokenizer, [question], opened=False) and _opens_later(tokenizer, question, opened):
        raise ModelError(
            "the chat template of this model opens no reply where add_generation_prompt asks for one; mend the template"
        )


def _opens_later(tokenizer: Tokenizer, question: Turn, opened: str) -> bool:
    """Whether markup of a reply follows where a question has ended: a server's prompt would end before it."""
    answered = rendered(tokenizer, [question, {"role": "assistant", "content": MARK}], opened=False)
    if not answered.startswith(opened):
        return False
    return bool(answered[len(opened) :].partition(MARK)[0].strip())


def _render(tokenizer: Tokenizer, turns: Sequence[Turn], opened: bool) -> str:
    with _bounded():
        return str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=opened))


@contextmanager
def _bounded() -> Iterator[None]:
    """Raise TimeoutError after so many seconds of computing: a template may hang on some texts only.

    Signals are heard in the main thread alone; elsewhere nothing is bounded.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(*_: object) -> None:
        raise TimeoutError(f"it computes for more than {SECONDS} seconds")

    kept = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, kept)


def _refusal(tokenizer: Tokenizer, turns: Sequence[Turn], opened: bool, problem: Exception) -> str:
    """One sentence about a template that has failed; its message is that for turns that say nothing of the policy."""
    if isinstance(problem, TemplateSyntaxError):
        line = f"line {problem.lineno}: {_short(problem)}"
        return f"the chat template of this model cannot be read: {line}; mend the template"
    roles = ", ".join(turn["role"] for turn in turns)
    verb = "refuses" if type(problem) is TemplateError else "fails on"
    try:
        _render(tokenizer, [{**turn, "content": "?"} for turn in turns], opened)
        why = "for what they say"
    except Exception as general:  # noqa: BLE001 - as above
        why = _short(general)
    hint = "; leave out the policy's `system`" if turns and turns[0]["role"] == "system" else ""
    return f"the chat template of this model {verb} the turns {roles}: {why}{hint}"


def _short(problem: Exception) -> str:
    return sentence(str(problem), _MOST) or type(problem).__name__


def _ends(template: str, variables: Mapping[str, object]) -> None:
    """Raise ModelError unless a template renders some chats within bounds."""
    tokens = json.dumps({name: str(token) for name, token in variables.items()}, sort_keys=True)
    if not _within(template, tokens, SECONDS, MEMORY):
        raise ModelError(
            f"the chat template of this model does not render within {SECONDS} seconds and {MEMORY >> 30} GB; "
            "mend the template"
        )


@cache  # of one process: a run loads the same tokenizer several times, and each look takes a process of its own
def _within(template: str, variables: str, seconds: int, memory: int) -> bool:
    """Whether a template, with variables in JSON, renders some chats in so much time and memory."""
    user, assistant = {"role": "user", "content": MARK}, {"role": "assistant", "content": MARK}
    chats = [
        [user],
        [{"role": "system", "content": MARK}, user],
        [user, assistant],
        [*[user, assistant] * 4, user],
    ]
    given = {
        "template": template,
        "chats": chats,
        "variables": json.loads(variables),
        "seconds": seconds,
        "bytes": memory,
    }
    script = Path(__file__).with_name("render_check.py")
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(script)],
            input=json.dumps(given),
            text=True,
            capture_output=True,
            timeout=20 * seconds,  # of a clock, where other processes have the cores
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
