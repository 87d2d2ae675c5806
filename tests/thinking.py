"""Chat templates of models that think, written for tests in the shapes that are about, and a model scripted to think.

The marks are ordinary text to the pico tokenizer, unless they are added to it.
"""

from __future__ import annotations

import copy
from typing import Any

from tests import pico
from tests.audit.scripted import Script, Scripted

_TURNS = "{% for m in messages %}<|{{ m.role }}|>"
_OPENS = "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>"
EMPTY = "<think>\n\n</think>\n\n"
SWITCHED = (
    f"{_TURNS}{{% if m.role == 'assistant' and loop.last %}}{EMPTY}{{% endif %}}{{{{ m.content }}}}{_OPENS}"
    f"{{% if enable_thinking is defined and enable_thinking is false %}}{EMPTY}{{% endif %}}{{% endif %}}"
)
"""Thinks unless it is told not to; then the prompt holds an empty block. So do replies in a conversation."""
OPENED = f"{_TURNS}{{{{ m.content.split('</think>')[-1] }}}}{_OPENS}<think>\n{{% endif %}}"
"""The prompt opens the block, and the reply holds nothing but its end."""
ASKED_FOR = f"{_TURNS}{{{{ m.content }}}}{_OPENS}{{% if thinking %}}[THINK]{{% else %}}[/THINK]{{% endif %}}"
ASKED_FOR += "{% endif %}"
"""Thinks only where it is asked to."""
CHANNELS = (
    f"{_TURNS}{{% if m.reasoning_content %}}<|to|>self: {{{{ m.reasoning_content }}}}<|to|>user: {{% endif %}}"
    f"{{{{ m.content }}}}{_OPENS}{{% endif %}}"
)
"""Marks of a shape that no grammar knows, around thoughts that a turn brings along."""


def tokenizer(template: str, special: tuple[str, ...] = ()) -> Any:
    """The pico tokenizer with another template, and with some marks as special tokens."""
    made = copy.deepcopy(pico.tokenizer())
    made.chat_template = template
    if special:
        made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


class Thinker(Scripted):
    """Real weights and logits, and replies from a script, asked through a template that lets it think."""

    def __init__(self, script: Script, template: str = SWITCHED) -> None:
        super().__init__(script)
        self.tokenizer = tokenizer(template)


def thinking(text: str) -> bool:
    """Whether a prompt in the template SWITCHED lets the model think."""
    return text.endswith("<|assistant|>")
