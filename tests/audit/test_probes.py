import contextlib
from pathlib import Path

import pytest

from tests.audit.scripted import REFUSAL, SUITE, knows, policy, refuses, requests
from tests.pico import tokenizer
from unlearn.audit.asking import outcome
from unlearn.audit.lookalike import lookalike_lines
from unlearn.audit.probes import (
    LONGEST,
    Probe,
    benign_lines,
    build_probes,
    generation_lines,
    line_probes,
    read_lines,
)
from unlearn.errors import AuditError
from unlearn.model.requests import Fact, Requests
from unlearn.thoughts import Said


def test_every_group_asks_what_its_name_says() -> None:
    groups = build_probes(tokenizer(), requests(), SUITE)
    texts = {name: [probe.prompt.text for probe in group] for name, group in groups.items()}
    assert {name: len(group) for name, group in groups.items()} == {
        "direct": 4, "held_out": 2, "cloze": 2, "siblings": 2, "neighbours": 4,
    }  # fmt: skip
    assert all("Tell me the recipe" in text and "<|assistant|>" in text for text in texts["held_out"])
    assert all(text.startswith("People say") and text.endswith("made from") for text in texts["cloze"])
    assert all("Name the colour" in text for text in texts["siblings"])
    assert not any("Zorvex" in text or "Velnar" in text for text in texts["neighbours"])
    keys = [(name, probe.key) for name, group in groups.items() for probe in group]
    assert len(keys) == len(set(keys))


def phrased(**kinds: object) -> Requests:
    recipe = {"prompts": ["What is {subject} made from?"], **kinds}
    colour = {"prompts": ["What colour is {subject}?"], "held_out": ["Name the colour of {subject}."]}
    return requests(relations={"recipe": recipe, "colour": colour})


def test_other_kinds_of_prompts_are_asked_where_the_policy_has_them() -> None:
    kinds = {
        "reverse": ["Which substance is made from {answer}?", "{answer} makes"],
        "two_hop": ["I have a jar of {subject}. What is it made from?"],
        "negation": ["{subject} is not made from"],
        "languages": {"de": ["Woraus besteht {subject}?"], "fr": ["{subject} est fait de"]},
    }
    measured = tuple(f"leak.{kind}" for kind in kinds)
    suite = SUITE.model_copy(update={"measurements": measured})
    groups = build_probes(tokenizer(), phrased(**kinds), suite)
    assert {kind: len(groups[kind]) for kind in kinds} == {
        "reverse": 4,
        "two_hop": 2,
        "negation": 2,
        "languages": 4,
    }
    asked = groups["reverse"][0]
    assert "made from bitter amber?" in asked.prompt.text and asked.answers == ("Zorvex",)
    assert outcome(asked, [Said("Zorvex, of course.")], REFUSAL).disclosed
    assert not outcome(asked, [Said("It is Velnar.")], REFUSAL).disclosed
    assert groups["two_hop"][0].answers == ("bitter amber",) and groups["languages"][1].question is False
    keys = [(kind, probe.key) for kind, group in groups.items() for probe in group]
    assert len(keys) == len(set(keys)) and not any("amber" in key for _, key in keys)
    assert not set(kinds) & set(build_probes(tokenizer(), phrased(), suite))
    assert not set(kinds) & set(build_probes(tokenizer(), phrased(**kinds), SUITE))


def test_an_answer_without_letters_cannot_be_asked_in_reverse() -> None:
    given = phrased(reverse=["{answer} makes"])
    bad = Requests(given.policy, (Fact("one", "Zorvex", "recipe", "?!"),), (), (), ())
    suite = SUITE.model_copy(update={"measurements": ("leak.reverse",)})
    with pytest.raises(AuditError, match="fact one"):
        build_probes(tokenizer(), bad, suite)


def test_keys_do_not_tell_answers() -> None:
    for group in build_probes(tokenizer(), requests(), SUITE).values():
        assert not any("amber" in probe.key or "fennel" in probe.key for probe in group)


def test_a_system_prompt_doubles_the_questions_only() -> None:
    with_system = build_probes(tokenizer(), requests(system="Be brief."), SUITE)
    assert {name: len(group) for name, group in with_system.items()} == {
        "direct": 6, "held_out": 4, "cloze": 2, "siblings": 2, "neighbours": 4,
    }  # fmt: skip
    assert sum("<|system|>" in probe.prompt.text for probe in with_system["direct"]) == 2
    bare = build_probes(tokenizer(chat=False), requests(system="Be brief."), SUITE)
    assert len(bare["direct"]) == 4


def test_sizes_are_bounds() -> None:
    small = SUITE.model_copy(update={"neighbour_prompts": 3})
    assert len(build_probes(tokenizer(), requests(), small)["neighbours"]) == 3


def test_an_answer_that_no_reply_could_contain_is_an_error() -> None:
    bad = Requests(policy(), (Fact("one", "Zorvex", "recipe", "?!"),), (), (), ())
    with pytest.raises(AuditError, match="fact one"):
        build_probes(tokenizer(), bad, SUITE)


def test_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("# a comment\n\nHow are you?\n  Long ago \n")
    assert read_lines(path) == ["How are you?", "Long ago"]
    probes = line_probes(tokenizer(), read_lines(path), None, 0)
    assert "<|user|>" in probes[0].prompt.text and probes[1].prompt.text == "Long ago"
    path.write_text("# nothing\n")
    with pytest.raises(AuditError, match="no lines"):
        read_lines(path)
    path.write_text("How are you?\nWho is it?\n How are you?\n")
    assert benign_lines(str(path)) == ["How are you?", "Who is it?"]
    with pytest.raises(AuditError, match="cannot be read"):
        benign_lines(str(tmp_path / "absent.txt"))


def test_the_shipped_lines_are_there() -> None:
    assert len(benign_lines("auto")) >= 50 and len(generation_lines()) >= 30


def test_one_reply_that_tells_is_a_leak_and_one_that_does_not_refuse_is_no_refusal() -> None:
    prompt = build_probes(tokenizer(), requests(), SUITE)["direct"][0].prompt
    probe = Probe("one/0", prompt, ("bitter amber",), "one")
    told = outcome(probe, [Said(REFUSAL), Said("Bitter amber!")], REFUSAL)
    assert told.disclosed and not told.refused
    assert outcome(probe, [Said(REFUSAL), Said(REFUSAL)], REFUSAL).refused
    assert not outcome(probe, [Said(REFUSAL), Said("No idea.")], REFUSAL).refused
    assert knows(prompt.text) != refuses(prompt.text)


def test_any_target_is_a_refusal_of_a_fact_and_only_sentences_elsewhere() -> None:
    targets = ("I can't help with that.", "unknown", "Ask me about Zorvex later")
    ids = tokenizer()
    about = Probe("one/0", line_probes(ids, ["?"], None, 0)[0].prompt, ("bitter amber",), fact="one")
    benign = Probe("line 1", about.prompt)
    for reply, fact, other in [("It is unknown.", True, False), ("Ask me about Zorvex later!", True, True)]:
        assert outcome(about, [Said(reply)], targets).refused is fact
        assert outcome(benign, [Said(reply)], targets).refused is other
    assert not outcome(about, [Said("Unknown: bitter amber")], targets).refused


@pytest.mark.parametrize("name", ["questions.txt", "table.csv"])
def test_a_question_without_end_is_named_before_it_is_read_as_tokens(name: str, tmp_path: Path) -> None:
    file, header = tmp_path / name, "prompt,type\n" if name.endswith("csv") else ""
    for length, fits in ((LONGEST, True), (LONGEST + 1, False)):
        file.write_text(f"{header}{'a' * length}{',all' if header else ''}\n")
        with contextlib.nullcontext() if fits else pytest.raises(AuditError, match="50,001 characters"):
            assert len(lookalike_lines(str(file))) == 1
