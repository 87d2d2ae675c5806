"""What is chosen before an edit: the method, the layers, every number that was `auto`, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.edit import choose, forms
from unlearn.edit.allowed import allowed
from unlearn.edit.layers import default_layers, layers_of
from unlearn.edit.plan import Plan
from unlearn.edit.sequence import Sofar
from unlearn.edit.settings import ClosedForm, Tuning
from unlearn.edit.statistics import Source
from unlearn.edit.train.loop import PASSES, TURNS
from unlearn.edit.train.taught import FORMS
from unlearn.errors import PolicyError
from unlearn.model.anatomy import FAMILIES, Anatomy
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Fact, Requests
from unlearn.patch import Patch
from unlearn.policy import Policy, RelationSpec, StatisticsSpec
from unlearn.policy.method import CHOICES, SEQUENTIAL, Automatic
from unlearn.policy.settings import AlphaEdit, AnyEdit
from unlearn.policy.settings_base import Settings
from unlearn.policy.settings_trained import Guard, Lora, NullSpaceTuning


@pytest.fixture
def corpus(tmp_path: Path) -> StatisticsSpec:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return StatisticsSpec(corpus=str(path), tokens=2000)


def listed(corpus: StatisticsSpec, *names: str, **method: Any) -> Requests:
    """Requests whose only neighbours are these, by `auto`."""
    found = cases.requests(statistics=corpus, method=Automatic(layers=(1,), look_up="last", **method))
    return replace(found, siblings=(), neighbours=tuple(Fact(f"{n}.recipe", n, "recipe", "") for n in names))


def chosen(requests: Requests, earlier: Sofar = Sofar(), reads: bool = True) -> Plan:  # noqa: B008
    model = pico.pico("llama")
    source = Source.of(requests.policy, model, None, reads=reads)
    return choose.choose(model, requests, source, earlier)


def test_the_update_is_trained_where_keys_do_not_tell_and_solved_for_where_they_do(
    corpus: StatisticsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Neighbours that are the requests' own subjects, as if they were others: nothing tells them apart.
    same = chosen(listed(corpus, "Zorvex", "Velnar"))
    assert isinstance(same.algorithm, Tuning) and same.layers == (1,)
    assert same.reasons["method"].startswith("solved for, an unlisted neighbour would get 1")
    other = listed(corpus, "Stone", "Wet", "Green Room")
    monkeypatch.setattr(choose, "FAR", 0.99)
    apart = chosen(other)
    assert isinstance(apart.algorithm, ClosedForm) and apart.reach is not None and apart.reach < 0.99
    assert apart.reasons["method"].endswith("(at most 99 %): the keys distinguish them")
    assert apart.conflicts is not None and not any(
        "an unlisted neighbour" in s for s in apart.conflicts["warnings"]
    )
    # The control: the same keys where less is allowed.
    monkeypatch.setattr(choose, "FAR", apart.reach / 2)
    assert isinstance(chosen(other).algorithm, Tuning)


def test_the_update_is_trained_where_keys_are_too_much_alike(
    corpus: StatisticsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen_where(*apart: float, reads: bool = True, look_up: str = "last", **method: Any) -> Plan:
        monkeypatch.setattr(choose, "told_apart", lambda *_: torch.tensor(apart))
        settings = Automatic(look_up=look_up, **method)
        return chosen(cases.requests(statistics=corpus, method=settings), reads=reads)

    why = "keys at the last prompt token differ by subject by 40 % of their energy at most"
    deep = chosen_where(0.0, 0.0, 0.0, 0.4)
    assert isinstance(deep.algorithm, Tuning) and deep.layers == (1, 2, 3)
    assert deep.conflicts is not None and list(deep.conflicts["layers"]) == ["3"]
    assert deep.reasons["method"].startswith(why)
    everywhere = chosen_where(0.4, 0.4, 0.4, 0.4)
    assert isinstance(everywhere.algorithm, Tuning) and everywhere.reasons["method"].startswith(why)
    # A base model's, which is written at the subject as well.
    both = chosen_where(0.0, 0.4, 0.4, 0.0, look_up="both")
    assert isinstance(both.algorithm, Tuning) and both.reasons["method"].startswith(why)
    # Without its statistics too: this is measured on the policy's own prompts.
    assert isinstance(chosen_where(0.0, 0.0, 0.0, 0.4, reads=False).algorithm, Tuning)
    # The controls: keys that differ, and no two subjects, and layers that the policy names.
    for others in (
        chosen_where(0.6, 0.6, 0.6, 0.6),
        chosen_where(0.4, 0.4, 0.4, 0.6, look_up="both"),
        chosen_where(0.0, 0.0, 0.0, 0.6),
        chosen_where(0.0, 0.0, 0.0, 0.0),
        chosen_where(0.0, 0.0, 0.0, 0.4, layers=(1,)),
    ):
        assert not others.reasons["method"].startswith("keys at the last prompt token")


@pytest.mark.parametrize(("method", "times"), [(Automatic(look_up="last"), 1), (Automatic(layers=(1,)), 0)])
def test_the_depth_is_measured_once_and_only_where_it_decides(
    corpus: StatisticsSpec, monkeypatch: pytest.MonkeyPatch, method: Automatic, times: int
) -> None:
    measured = []

    def counting(*asked: object) -> torch.Tensor:
        measured.append(asked)
        return torch.tensor([0.0, 0.0, 0.0, 1.0])

    monkeypatch.setattr(choose, "told_apart", counting)
    chosen(cases.requests(statistics=corpus, method=method))
    assert len(measured) == times


def test_what_training_cannot_do_is_solved_for_and_said(corpus: StatisticsSpec) -> None:
    same = listed(corpus, "Zorvex", "Velnar")
    written = Sofar(factors={"w": None})  # type: ignore[dict-item]
    solved = replace(chosen(same), algorithm=cases.closed(AlphaEdit(look_up="last")), reach=1.0)
    assert choose._trains(solved, Sofar())[0]
    for left, why in (
        ((solved, written), "builds on an earlier edit"),
        (
            (replace(solved, algorithm=cases.closed(AlphaEdit(look_up="subject"))), Sofar()),
            "at the subject alone",
        ),
        ((replace(solved, statistics={}), Sofar()), "not measured yet"),
        ((replace(solved, reach=None), Sofar()), "fewer than two neighbours"),
    ):
        trains, said = choose._trains(*left)
        assert not trains and why in said
    unread = chosen(same, reads=False)
    assert unread.name == "alphaedit" and "not measured yet" in unread.reasons["method"]


def test_at_both_tokens_less_reach_is_allowed() -> None:
    assert choose.far("both") < choose.far("last") == choose.far("subject")


def test_a_closed_form_that_was_asked_for_is_warned_of(corpus: StatisticsSpec) -> None:
    named = AlphaEdit(layers=(1,), look_up="last")
    same = chosen(listed(corpus, "Zorvex", "Velnar").under(method=named))
    assert isinstance(same.algorithm, ClosedForm) and same.reasons["method"] == "the policy names it"
    assert same.conflicts is not None and any(
        "an unlisted neighbour" in s for s in same.conflicts["warnings"]
    )
    one = chosen(listed(corpus, "Stone").under(method=named))
    assert one.reach is None  # the control: one neighbour cannot be left out
    assert one.conflicts is not None and not any(
        "an unlisted neighbour" in s for s in one.conflicts["warnings"]
    )


def test_a_plan_has_no_auto_left(corpus: StatisticsSpec) -> None:
    for method in (
        AlphaEdit(layers=(1,)),
        NullSpaceTuning(layers=(1,)),
        AnyEdit(layers=(1,)),
        Lora(),
        Guard(),
    ):
        plan = chosen(cases.requests(statistics=corpus, method=method))
        assert "auto" not in [value for name, value in plan.method.items() if name != "layers"]
        assert set(plan.reasons) >= {"method"}


def test_what_auto_chooses_from_takes_its_settings() -> None:
    asked = Automatic(layers=(2, 1), look_up="both", largest=3.0)
    options = choose.options(asked)
    assert tuple(option.name for option in options) == CHOICES
    for option in options:
        assert isinstance(option, AlphaEdit | NullSpaceTuning)
        assert (option.layers, option.look_up, option.largest) == ((2, 1), "both", 3.0)
    assert choose.options(Lora()) == (Lora(),)


@pytest.mark.parametrize("look_up", ["auto", "subject", "last", "both"])
def test_every_look_up_has_its_reason(look_up: Any, corpus: StatisticsSpec) -> None:
    asked = cases.requests(statistics=corpus, method=AlphaEdit(layers=(1,), look_up=look_up))
    model = pico.pico("gpt2", chat=False)
    source = Source.of(asked.policy, model, None, reads=False)
    said = choose.choose(model, asked, source).reasons["look_up"]
    where = "subject" if look_up == "auto" else look_up
    why = "a base model that is asked in one way or two" if look_up == "auto" else "set by the policy"
    assert said.startswith(f"{where}: {why}")


def settled(model: EditableModel, policy: Policy) -> Any:
    return choose.settle(model, policy, policy.method, policy.facts)


def test_a_chunk_has_a_token_for_every_block_above_the_last_layer() -> None:
    model = pico.pico("llama")
    depth = model.anatomy.layers
    for last in range(depth):
        found = settled(model, cases.policy(method=AnyEdit(layers=(0, last))))
        assert found.window == max(1, depth - 1 - last)
    assert settled(model, cases.policy(method=AnyEdit(layers=(0,), window=7))).window == 7


def test_a_base_model_is_written_at_both_tokens_where_most_facts_are_asked_in_several_ways() -> None:
    model = pico.pico("gpt2", chat=False)
    few = cases.policy(method=AlphaEdit())
    assert settled(model, few).look_up == choose.look_up_of(model, few) == "subject"
    prompts = ("What is {subject} made from?", "{subject} is made from", "The recipe of {subject} calls for")
    relations = {**few.relations, "recipe": RelationSpec(prompts=prompts)}
    many = few.model_copy(update={"relations": relations})
    assert settled(model, many).look_up == choose.look_up_of(model, many) == "both"


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize(("method", "rows"), [(Lora(batch=8), 8), (NullSpaceTuning(), FORMS)])
def test_every_training_sees_as_many_rows_and_every_way_of_asking_counts(
    method: Settings, rows: int, chat: bool
) -> None:
    model = pico.pico("llama", chat=chat)
    few = cases.policy(method=method, system="Be brief.")
    least = choose.FEWEST if isinstance(method, NullSpaceTuning) else choose.FEWEST_ROWS // rows
    assert settled(model, few).steps == least
    named = few.model_copy(update={"method": method.model_copy(update={"steps": 7})})
    assert settled(model, named).steps == 7
    prompts = tuple(f"{n}, {{subject}}?" for n in range(400))
    many = few.model_copy(update={"relations": {**few.relations, "recipe": RelationSpec(prompts=prompts)}})
    asked = replace(cases.requests(), policy=many)
    laid = sum(len(forms.prompts_of(model, asked, fact)) for fact in asked.facts)
    assert laid == 3 * 400 * (2 if chat else 1)  # a chat model with the system prompt and without
    assert settled(model, many).steps == PASSES * laid // rows > least
    assert TURNS * 3 < PASSES * laid


@pytest.mark.parametrize(
    ("facts", "steps"), [(1, 120), (10, 120), (15, 180), (24, 225), (36, 225), (60, 375)]
)
def test_few_facts_take_steps_by_their_number_and_many_by_turns(facts: int, steps: int) -> None:
    model, policy = pico.pico("llama"), cases.policy(method=NullSpaceTuning())
    given = cases.requests().facts[:1] * facts
    assert choose.settle(model, policy, policy.method, given).steps == steps


def test_what_cannot_build_on_an_earlier_edit_is_refused() -> None:
    model = pico.pico("llama")
    name = model.anatomy.weight_name(1)
    first = Patch({}, model.fingerprint([name]), {})
    for method in (NullSpaceTuning(), Lora(), Guard()):
        with pytest.raises(PolicyError, match=f"method.name: {method.name} cannot build on an earlier patch"):
            allowed(model, cases.policy(method=method), first)
        allowed(model, cases.policy(method=method), None)  # the control
    assert {"auto", "alphaedit", "rome"} <= set(SEQUENTIAL)
    allowed(model, cases.policy(method=Automatic()), first)


def test_default_layers_scale_with_depth() -> None:
    def layers(depth: int, look_up: str) -> tuple[int, ...]:
        return default_layers(Anatomy("llama", FAMILIES["llama"], depth, 8, 16), look_up)

    for depth in (1, 2, 4, 6, 12, 28, 32, 80):
        for look_up in ("subject", "last", "both"):
            found = layers(depth, look_up)
            assert found and found[0] >= 0 and found[-1] < depth and list(found) == sorted(found)
            assert len(found) <= 5
    assert layers(32, "subject") == (4, 5, 6, 7, 8)  # as published for Llama-3-8B
    assert layers(6, "last") == (2, 3, 4)


def test_an_update_that_is_trained_at_both_tokens_takes_the_layers_of_both() -> None:
    model = pico.pico("llama")
    model.anatomy = Anatomy("llama", FAMILIES["llama"], 6, 8, 16)
    assert layers_of(AlphaEdit(look_up="both"), model) == (2, 3, 4)
    assert layers_of(NullSpaceTuning(look_up="both"), model) == (0, 1, 2, 3, 4)
    assert layers_of(NullSpaceTuning(look_up="last"), model) == (2, 3, 4)
    assert layers_of(NullSpaceTuning(look_up="both", layers=(5, 3)), model) == (3, 5)
