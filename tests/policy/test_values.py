"""White space and invisible characters at the ends of a policy's texts are named with their line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tests.files import policy_text, run
from unlearn.errors import PolicyError
from unlearn.policy.file import load_policy
from unlearn.policy.values import UNSEEN, Text

PLACES = {
    "refusal": "refusal: @I can't help with that.@",
    "system": "system: @Be brief.@",
    "model": "model: @embedded@",
    "facts[0].subject": "facts: [{id: a, relation: recipe, subject: @Stenmite@}]",
    "facts[0].answer": "facts: [{id: a, subject: Stenmite, relation: recipe, answer: @salt@}]",
    "facts[0].aliases[0]": "facts: [{id: a, subject: Stenmite, relation: recipe, answer: salt, aliases: [@sea salt@]}]",
    "facts[0].refusal": "facts: [{id: a, subject: Stenmite, relation: recipe, refusal: @No.@}]",
    "relations.recipe.refusal": "relations: {colour: {prompts: ['{subject} is']}, recipe: {prompts: ['A {subject}'], "
    "refusal: @No.@}}",
    "relations.recipe.languages.de[0]": "relations: {colour: {prompts: ['{subject} is']}, recipe: {prompts: "
    "['A {subject}'], languages: {de: [@{subject} ist aus@]}}}",
    **{
        f"relations.recipe.{kind}[0]": "relations: {colour: {prompts: ['{subject} is']}, recipe: {prompts: "
        f"['A {{subject}}'], {kind}: [@{{subject}} is made from@]}}}}"
        for kind in ("held_out", "two_hop", "negation")
    },
    "relations.recipe.prompts[0]": "relations: {colour: {prompts: ['{subject} is']}, recipe: {prompts: "
    "[@{subject} is made from@]}}",
    "relations.recipe.reverse[0]": "relations: {colour: {prompts: ['{subject} is']}, recipe: {prompts: "
    "['A {subject}'], reverse: [@What is made from {answer}?@]}}",
    "keep.neighbours[0]": "keep: {siblings: [colour], neighbours: [@Velnar@]}",
    "keep.held_out_neighbours[0]": "keep: {siblings: [colour], held_out_neighbours: [@Velnar@]}",
}  # fmt: skip
"""One text of each kind between two @, by its key."""


def policy(tmp_path: Path, block: str, before: str = "", after: str = "") -> Path:
    """A policy with one block, whose text stands between two fillings."""
    key = block.partition(":")[0]
    written = block.replace("@", f'"{before}', 1).replace("@", f'{after}"', 1)
    path = tmp_path / "p.yaml"
    path.write_text(policy_text(**{key: written}), encoding="utf-8")
    return path


@pytest.mark.parametrize("key", PLACES)
def test_what_a_reader_does_not_see_at_the_end_of_a_text_is_named(tmp_path: Path, key: str) -> None:
    load_policy(policy(tmp_path, PLACES[key]))
    for before, after, said in (
        ("", " ", "ends in white space; take it away"),
        ("", "\u00a0", "ends in white space; take it away"),
        ("\\t", "", "begins with white space; take it away"),
        ("", "\\n", "ends in a line break; take it away (YAML's `|` and `>` add one, `|-` and `>-` do not)"),
        ("\\u200b", "", "begins with an invisible character (U+200B zero width space)"),
    ):
        path = policy(tmp_path, PLACES[key], before, after)
        block = PLACES[key].partition(":")[0] + ":"
        line = 1 + [text.startswith(block) for text in path.read_text().splitlines()].index(True)
        with pytest.raises(PolicyError) as caught:
            load_policy(path)
        heads = [text.split() for text in str(caught.value).splitlines()]
        assert heads[0][:2] == [f"{path}:{line}", key], heads
        assert said in str(caught.value)


@pytest.mark.parametrize(("mark", "right"), [("|", False), (">", False), ("|-", True), (">-", True)])
def test_a_block_of_yaml_may_not_bring_its_line_break(
    tmp_path: Path, mark: str, right: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(policy_text(system=f"system: {mark}\n  Be brief.\n  Be kind."))
    assert run("check", path) == (0 if right else 2)
    told = capsys.readouterr().err
    assert right or (told.startswith(f"{path}:13 system  ends in a line break") and "`|-`" in told), told


@given(st.text(alphabet=[*" \t\n\u00a0\u3000\u2028ab\u200d", *sorted(UNSEEN)], min_size=1))
def test_a_text_that_is_taken_ends_in_what_is_seen(text: str) -> None:
    bare = text.strip("".join(UNSEEN) + " \t\n\u00a0\u3000\u2028")
    try:
        taken = TypeAdapter(Text).validate_python(text)
    except ValidationError:
        assert text != bare or not bare
    else:
        assert taken == text == bare
