"""A candidate is asked as the unedited model is, and what it brings along instead is named."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests import chats, pico
from tests.audit.scripted import SUITE, Scripted, knows, requests, scrubbed
from unlearn.audit import pipeline
from unlearn.audit.pair import asked_alike
from unlearn.model.editable import EditableModel


def model(configured: Any, kind: chats.Kind) -> EditableModel:
    network = pico.network("llama")
    network.generation_config.eos_token_id = configured
    return EditableModel(network, chats.tokenizer(kind), "pico")


CHAT = chats.Kind("bytes", template=chats.MARKUP)


@pytest.mark.parametrize(
    ("configured", "named"), [(1, False), ([1], False), (None, True), (3, True), ([1, 3], True)]
)
def test_end_tokens_that_a_candidates_own_configuration_lacks_or_adds_are_named(
    configured: Any, named: bool
) -> None:
    """Its own folder stops where its generation config says, which the audit's union of all ends would hide."""
    base, edited = model(1, CHAT), model(configured, CHAT)
    with asked_alike(base, edited) as unasked:
        assert edited.ends == base.ends
    assert bool(unasked) == named and all("own end tokens" in what for what in unasked)
    assert edited.model.generation_config.eos_token_id == configured


@pytest.mark.parametrize("text", ["", "### End"])
def test_what_is_written_behind_an_end_that_is_no_token_is_not_tested(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pipeline", "observing"):
        monkeypatch.setattr(f"unlearn.audit.{module}.load_suite", lambda _name: SUITE)
    base, edited = Scripted(knows), Scripted(scrubbed)
    if text:
        monkeypatch.setattr("unlearn.model.editable.closing_text", lambda _tokenizer: f"\n{text}\n")
    found = pipeline.audit(base, lambda: contextlib.nullcontext(edited), requests())
    said = [line for line in found.not_tested if line.startswith("what is written behind the end of a turn")]
    assert said == (
        [f"what is written behind the end of a turn, {text!r}, unless the server stops there"] if text else []
    )
