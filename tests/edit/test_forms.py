"""The rows of an edit: questions outside the chat template, and relations that are looked up elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import pico
from tests.edit import cases
from tests.thinking import EMPTY, OPENED, SWITCHED, tokenizer
from unlearn.edit import forms
from unlearn.edit.allowed import allowed
from unlearn.errors import PolicyError
from unlearn.model.requests import Fact, Requests
from unlearn.policy import FactSpec
from unlearn.policy.settings import AnyEdit
from unlearn.policy.settings_trained import Lora

REFUSAL = "I can't help with that."


def with_look_up(**where: str) -> Requests:
    """Two facts about recipes and one about a colour, with a look-up of the relation's own."""
    given = cases.policy()
    specs = (*given.facts[:2], FactSpec(id="green", subject="Quandel", relation="colour", answer="green"))
    relations = {
        name: spec.model_copy(update={"look_up": where.get(name)}) for name, spec in given.relations.items()
    }
    keep = given.keep.model_copy(update={"siblings": ()})
    chosen = cases.policy(facts=specs, relations=relations, keep=keep)
    facts = tuple(Fact(f.id, f.subject, f.relation, f.answer or "") for f in specs)
    return replace(cases.requests(), policy=chosen, facts=facts, siblings=())


@pytest.mark.parametrize("own", ["subject", "both"])
def test_a_relation_may_be_looked_up_elsewhere_than_the_others(own: str) -> None:
    model = pico.pico("llama")
    found = with_look_up(colour=own)
    laid = forms.build(model, found, found.facts, "last")
    for row in laid.rows:
        at = {position for _, position in row.sites}
        last = set(range(len(row.prompt) - 1, len(row.ids) - 1))
        if found.facts[row.request].relation == "recipe":
            assert at == last
        elif own == "subject":
            assert len(at) == 1 and not at & last
        else:
            assert last < at and len(at) == len(last) + 1
    # A neighbour's subject is held as soon as any relation writes at subjects.
    assert max(len(places) for _, places in laid.kept) == 2
    alone = with_look_up()
    assert max(len(places) for _, places in forms.build(model, alone, alone.facts, "last").kept) == 1


@pytest.mark.parametrize("method", [AnyEdit(), Lora()])
def test_a_method_that_looks_up_in_one_place_refuses_another(method: object) -> None:
    model, found = pico.pico("llama"), with_look_up(colour="subject")
    policy = found.policy.model_copy(update={"method": method})
    with pytest.raises(PolicyError, match="relations.colour.look_up: .* does not look up by relation"):
        allowed(model, policy, None)
    allowed(model, with_look_up().policy.model_copy(update={"method": method}), None)


def test_a_template_with_a_switch_is_taught_both_ways() -> None:
    model = pico.pico("llama")
    model.tokenizer = tokenizer(SWITCHED)
    given = cases.requests()
    laid = forms.build(model, given, given.facts, "last")
    mine = [row for row in laid.rows if row.request == 0 and not row.statement]
    assert [model.tokenizer.decode(row.prompt).endswith(EMPTY) for row in mine] == [False, True]
    # Each way in the words that the template writes around a refusal without thoughts, and by vectors of its own.
    said = [model.tokenizer.decode(row.ids[len(row.prompt) :]) for row in mine]
    assert said == [f"{EMPTY}{REFUSAL}<|end|>", f"{REFUSAL}<|end|>"]
    thinking, quiet = ({vector for vector, _ in row.sites} for row in mine)
    assert thinking and quiet and not thinking & quiet
    # Every form of a kept fact lends its keys in both ways as well; a statement has one.
    assert len(forms.prompts_of(model, given, given.siblings[0])) == 3
    system = cases.requests(system="Be brief.")
    assert len(forms.prompts_of(model, system, system.facts[0])) == 5


def test_a_refusal_closes_the_block_that_the_prompt_has_opened() -> None:
    model = pico.pico("llama")
    model.tokenizer = tokenizer(OPENED)
    given = cases.requests()
    row = next(row for row in forms.build(model, given, given.facts, "last").rows if not row.statement)
    assert model.tokenizer.decode(row.prompt).endswith("<think>\n")
    assert model.tokenizer.decode(row.ids[len(row.prompt) :]) == f"\n</think>\n\n{REFUSAL}<|end|>"
