"""The tell-tale: an audit that asks otherwise than transformers alone fails, with the name of the prompt."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from tests import chats, pico, thinking
from tests.audit.scripted import ANSWERS, SUITE, Scripted, knows, policy, requests, scrubbed
from unlearn.audit import agreement, pipeline
from unlearn.audit.agreement import NAME, QUESTIONS, STATEMENTS, agreements, asked_twice, tied
from unlearn.audit.consistency import contradictions
from unlearn.audit.observation import Agreement, Observation
from unlearn.audit.observing import observe
from unlearn.audit.suite import Suite, load_suite
from unlearn.errors import AuditError
from unlearn.model import prompts
from unlearn.model.editable import EditableModel
from unlearn.model.ends import Ends
from unlearn.model.guard import guarded
from unlearn.model.prompts import Prompt
from unlearn.report import Report

CLOSING = chats.Kind("bytes", (chats.BOS,), ("<|end|>",), template=pico.TEMPLATE)


def model_with(kind: chats.Kind, seed: int = 0) -> EditableModel:
    return EditableModel(pico.network("qwen2", seed=seed), chats.tokenizer(kind), "pico")


def limits(name: str) -> float | None:
    return policy().audit.limit(name)


def seen(*found: Agreement, **rest: Any) -> Observation:
    return Observation(suite="tiny", agreements=found, **rest)


GOOD = Agreement(key="one/prompts/0", fact="one", ids=True, reply=True)


@pytest.mark.parametrize(
    "kind", [CLOSING, *(chats.Kind("bytes", (chats.BOS,), template=t) for t in (None, *chats.CHATS))]
)
def test_the_audit_asks_as_transformers_alone_asks(kind: chats.Kind) -> None:
    given = requests(system="Be brief." if kind.template != chats.NO_SYSTEM else None)
    found = agreements(model_with(kind), given, 6)
    assert len(found) == 6 and all(one.agrees for one in found)
    chatted = [one.key for one in found if one.key.endswith("/system")]
    assert bool(chatted) == (kind.template not in (None, chats.NO_SYSTEM))


def test_every_way_of_a_template_is_asked_as_a_server_asks_with_its_argument() -> None:
    model = pico.pico("llama")
    model.tokenizer = thinking.tokenizer(thinking.SWITCHED)
    found = agreements(model, requests(), 6)
    assert [one.key.endswith("/quiet") for one in found].count(True) == 2
    assert all(one.agrees for one in found)


def test_prompts_that_are_asked_twice_are_few_and_the_same_in_every_state() -> None:
    tokenizer = pico.tokenizer()
    chosen = asked_twice(tokenizer, requests())
    assert [one.key for one in chosen] == [
        one.key for one in asked_twice(guarded(tokenizer, "No."), requests())
    ]
    assert len({one.key for one in chosen}) == len(chosen) <= QUESTIONS + STATEMENTS
    assert {one.chat for one in chosen} == {True, False} and {one.fact for one in chosen} <= {"one", "two"}
    many = requests(facts=[{"id": s, "subject": s, "relation": "recipe"} for s in ANSWERS])
    assert len(asked_twice(tokenizer, many)) == QUESTIONS + STATEMENTS


def test_a_guard_is_part_of_both() -> None:
    model = model_with(CLOSING)
    model.tokenizer = guarded(model.tokenizer, "Never tell.")
    found = asked_twice(model.tokenizer, requests())
    assert all("Never tell." in one.prompt.text for one in found)
    assert all(one.agrees for one in agreements(model, requests(), 8))


def closed(prompt: Prompt) -> Prompt:
    return copy.copy(prompt).__class__(**{**vars(prompt), "ids": (*prompt.ids, 1)})


def faulty(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Put a fault into the path by which the audit asks."""
    if fault == "an end token behind the prompt":
        for name in ("chat_prompt", "plain_prompt"):
            plain = getattr(prompts, name)
            monkeypatch.setattr(prompts, name, lambda *a, plain=plain, **k: closed(plain(*a, **k)))
    elif fault == "a second start token":
        plain_chat = prompts.chat_prompt
        monkeypatch.setattr(
            prompts,
            "chat_prompt",
            lambda *a, **k: Prompt("", (0, *plain_chat(*a, **k).ids), 1, 1, True),
        )
    elif fault == "another chat template":
        monkeypatch.setattr(
            prompts,
            "rendered",
            lambda t, turns, opened=True: "<|user|>" + turns[-1]["content"] + "<|assistant|>",
        )
    elif fault == "no end of turn":
        plain_ids = EditableModel.generate_ids
        monkeypatch.setattr(
            EditableModel, "generate_ids", lambda *a: [row[: len(row) // 2] for row in plain_ids(*a)]
        )
    elif fault == "another choice of tokens":
        second = lambda logits, *_: logits.topk(2).indices[:, 1]  # noqa: E731
        monkeypatch.setattr("unlearn.model.generation._chosen", second)


FAULTS = {
    "an end token behind the prompt": "other ids",
    "a second start token": "other ids",
    "another chat template": "other ids",
    "no end of turn": "another reply",
    "another choice of tokens": "another reply",
}


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> Callable[[], pipeline.Findings]:
    """A whole audit of a good edit, whose path may be faulty."""
    monkeypatch.setattr(pipeline, "load_suite", lambda _name: SUITE)
    monkeypatch.setattr("unlearn.audit.observing.load_suite", lambda _name: SUITE)
    import contextlib

    def run() -> pipeline.Findings:
        base, edited = Scripted(knows), Scripted(scrubbed)
        return pipeline.audit(base, lambda: contextlib.nullcontext(edited), requests())

    return run


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_audits_path_fails_the_audit(
    fault: str, audited: Callable[[], pipeline.Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    (control,) = (m for m in audited().measurements if m.name == NAME)
    assert control.passed and control.after == control.before == 1.0 and control.n == control.hits == 6
    faulty(monkeypatch, fault)
    (found,) = (m for m in audited().measurements if m.name == NAME)
    assert found.passed is False and found.reason is not None
    assert "before the edit the audit asks otherwise" in found.reason and FAULTS[fault] in found.reason
    assert "/prompts/" in found.reason or "/held_out/" in found.reason
    assert "Zorvex" not in found.reason and "made from" not in found.reason


def test_both_states_count() -> None:
    right = agreement.agreement(seen(GOOD), seen(GOOD), limits)
    assert right.passed and not list(contradictions(Report.of([right])))
    # Six of six is no sample of anything: judged strictly it is what it is.
    assert right.under("strict").passed
    bad = Agreement(key="two/held_out/0/system", fact="two", ids=True, reply=False)
    for before, after, state in (
        (seen(GOOD, bad), seen(GOOD, GOOD), "before"),
        (seen(GOOD), seen(bad), "after"),
    ):
        found = agreement.agreement(before, after, limits)
        assert found.passed is False and found.after is None
        assert f"{state} the edit" in str(found.reason) and "two/held_out/0/system (another reply)" in str(
            found.reason
        )
    # No limit of a policy makes it good enough.
    assert agreement.agreement(seen(GOOD), seen(bad), lambda _name: 0.0).passed is False


def test_what_was_not_asked_twice_has_failed() -> None:
    for before, after in (
        (seen(GOOD), seen(failed={"agreement": "too little memory"})),
        (seen(failed={"agreement": "too little memory"}), seen(GOOD)),
        (seen(), seen(GOOD)),
        (seen(GOOD), seen()),
    ):
        found = agreement.agreement(before, after, limits)
        assert found.passed is False and found.reason in ("too little memory", "nothing was asked twice")


def test_a_model_of_nan_agrees_on_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearn.audit.observing.load_suite", lambda _name: SUITE)
    model = pico.pico("llama")
    model.weight(model.anatomy.weight_name(0)).fill_(torch.nan)
    assert "not finite" in observe(model, requests()).failed["agreement"]


def test_a_template_that_only_the_plain_call_cannot_render_is_named_by_its_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_with(chats.Kind("bytes", template=chats.MARKUP))
    monkeypatch.setattr(prompts, "rendered", lambda *_a, **_k: "What is Zorvex Velnar made from?")
    monkeypatch.setattr(model.tokenizer, "chat_template", "{{ raise_exception(messages[0].content) }}")
    monkeypatch.setattr(prompts, "chat_prompt", lambda *_a, **_k: Prompt("", (1, 2), chat=True))
    with pytest.raises(
        AuditError, match=r"the prompt \w+/\w+/\d cannot be built by transformers alone: Temp"
    ) as said:
        agreements(model, requests(), 4)
    assert "Zorvex" not in str(said.value)


def test_a_stop_of_several_tokens_ends_both_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_with(chats.Kind("bytes", (chats.BOS,), template=chats.BEGUN))
    free = model.generate_ids([one.prompt.ids for one in asked_twice(model.tokenizer, requests())], 16)
    text = next(
        said
        for row in free
        for i in range(len(row) - 2)
        if len(said := model.tokenizer.decode(row[i : i + 2])) > 1 and said.isascii() and said.strip() == said
    )
    ends = Ends(frozenset({1}), text, model.tokenizer)
    monkeypatch.setattr(EditableModel, "ends", ends)
    stopped = model.generate_ids([one.prompt.ids for one in asked_twice(model.tokenizer, requests())], 16)
    assert stopped != free and all(one.agrees for one in agreements(model, requests(), 16))
    monkeypatch.setattr(Ends, "until", lambda _self, ids: tuple(ids))
    monkeypatch.setattr(Ends, "ended", lambda _self, ids: ids[-1] == 1)
    assert not all(one.agrees for one in agreements(model, requests(), 16))


def test_replies_may_part_only_at_a_tie() -> None:
    model = pico.pico("llama")
    ids = [0, 5, 6, 7]
    logits = model.model(torch.tensor([ids])).logits[0, -1]
    first, second, *_, last = logits.argsort(descending=True).tolist()
    assert not tied(model, ids, [first, 5], [second, 6]) and not tied(model, ids, [last], [first])
    assert not tied(model, ids, [first], [first, 5])  # one has stopped where the other goes on
    head = model.model.get_output_embeddings().weight
    head[second] = head[first] * (1 + 1e-6)
    assert tied(model, ids, [first, 5], [second, 6]) and tied(model, ids, [second], [first])
    assert not tied(model, ids, [last], [first])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_in_a_padded_batch_is_a_tie_in_every_dtype(dtype: torch.dtype) -> None:
    """Over some seeds and dtypes rows that are padded round otherwise; none of it may fail an audit."""
    for seed in range(2):
        model = EditableModel(pico.network("llama", seed=seed).to(dtype), pico.tokenizer(), "pico", dtype)
        assert all(one.agrees for one in agreements(model, requests(), 12))


def test_every_suite_makes_it() -> None:
    def of(*names: str) -> Sequence[str]:
        return Suite(name="x", description="", measurements=names).measurements

    assert (
        of() == (NAME,) and of("leak.direct") == ("leak.direct", NAME) and of(NAME, "leak.direct")[-1] == NAME
    )
    assert all(load_suite(name).measurements[-1] == NAME for name in ("quick", "standard", "full"))
