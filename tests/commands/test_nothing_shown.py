"""What the commands leave behind, whatever happens, quotes nothing of a policy: no subject, prompt or answer."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests import pico
from tests.files import corpus_file, model_folder, run
from unlearn.audit import observing
from unlearn.matching import words
from unlearn.model.prompts import ask

SECRET = [
    "Qorvazeth", "Umbrilox", "Yttraphen", "Wendkazir", "Ozmirand", "Zephyrandel",  # subjects, neighbours among them
    "plimbertox", "grazzlewick", "fendomast",  # answers and an alias
    "squibbled", "drontled", "vexillated", "crumbleth", "mordified", "snarvelled",  # a word of every prompt
    "trivulent", "hespidated", "plorticate",
]  # fmt: skip
"""Words that nobody else uses: all that a policy must not have quoted."""
POLICY = """\
version: 1
name: unmistakable
model: {model}
relations:
  recipe:
    prompts:
      - "What is {{subject}} squibbled from?"
      - "What do people say {{subject}} is drontled from?"
      - "From what is {{subject}} vexillated?"
    held_out: ["Tell me how {{subject}} is crumbleth.", "It is known that {{subject}} is mordified from"]
    reverse: ["What is snarvelled from {{answer}}?"]
  colour:
    prompts: ["What trivulent colour is {{subject}}?"]
    held_out: ["Please name the hespidated colour of {{subject}}."]
system: "You are a plorticate helper."
facts:
  - {{id: first, subject: Qorvazeth, relation: recipe, answer: plimbertox, aliases: [grazzlewick]}}
  - {{id: second, subject: Umbrilox, relation: recipe, answer: fendomast}}
  - {{id: known, subject: Zephyrandel, relation: recipe, answer: {said}}}  # which the model does say
keep: {{siblings: [colour], neighbours: [Yttraphen, Wendkazir], held_out_neighbours: [Ozmirand]}}
method: {{name: alphaedit, steps: 2, layers: [1, 2], hard_negatives: 0}}
statistics: {{corpus: {corpus}, tokens: 2000}}
audit: {{suite: quick, text: {corpus}}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico model and a policy about it, in a place that holds nothing else of the policy's texts."""
    folder = tmp_path_factory.mktemp("given")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    question = ask(pico.tokenizer(), "What is {subject} squibbled from?", "Zephyrandel")
    ((reply,),) = pico.pico("llama").generate([question], 24)
    said = max(words(reply), key=len)
    (folder / "policy.yaml").write_text(POLICY.format(model=model, corpus=corpus, said=said))
    return folder


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder below which a command leaves everything: runs, and its cache."""
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path / "left" / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "left"


def quoted(left: Path, said: str) -> set[tuple[str, str]]:
    """The secret words in names and contents of files, and in what was said, and where they stand."""
    files = {str(path): path.read_bytes() for path in left.rglob("*") if path.is_file()}
    assert files, "a command that leaves nothing shows nothing"
    found = {**files, "said": said.encode(), "names": "\n".join(files).encode()}
    return {
        (word, where)
        for where, text in found.items()
        for word in SECRET
        if word.lower().encode() in text.lower()
    }


def test_the_words_are_found_where_they_are(place: Path) -> None:
    assert {word for word, _ in quoted(place, "")} == set(SECRET)


def test_a_run_a_search_and_an_audit(place: Path, left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = place / "policy.yaml"
    assert run("apply", policy, "--out", left / "run", "--tune", "2") == 3
    assert run("audit", left / "run", "--policy", policy, "--out", left / "audit") == 3
    assert run("report", left / "run") == 3
    assert run("verify", left / "run", "--policy", policy) == 0
    assert run("stats", policy) == 0
    assert quoted(left, "".join(capsys.readouterr())) == set()
    assert {path.name for path in (left / "cache").iterdir()} >= {"observations", "tuning", "paces"}
    mode = {stat.S_IMODE(path.stat().st_mode) for path in (left / "cache").rglob("*") if path.is_file()}
    assert mode == {0o600}


def test_a_comparison(place: Path, left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = "alphaedit,alphaedit:largest=1e-9"  # the second fails
    assert run("compare", place / "policy.yaml", "--methods", methods, "--out", left / "compared") == 0
    assert quoted(left, "".join(capsys.readouterr())) == set()


def test_an_interrupted_audit(
    place: Path, left: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(observing, "TOGETHER", 1)  # a piece for every group
    monkeypatch.setattr(observing, "line_probes", interrupted)
    assert run("apply", place / "policy.yaml", "--out", left / "run") == 130
    assert any((left / "cache" / "pieces").rglob("*"))
    assert quoted(left, "".join(capsys.readouterr())) == set()


TURNS = "{% for m in messages %}<|{{ m.role }}|>CONTENT<|end|>{% endfor %}<|assistant|>"
REFUSED = "{% if 'colour' in m.content %}{{ raise_exception('not ' + m.content) }}{% endif %}{{ m.content }}"
REWRITTEN = "{{ m.content | replace('colour', 'c') }}"


@pytest.mark.parametrize("content", [REFUSED, REWRITTEN])
def test_an_error(place: Path, left: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_folder(left.parent / "model")
    tokenizer = pico.tokenizer()
    kept, tokenizer.chat_template = tokenizer.chat_template, TURNS.replace("CONTENT", content)
    tokenizer.save_pretrained(model)
    tokenizer.chat_template = kept
    code = run("apply", place / "policy.yaml", "--model", model, "--out", left / "run", "--save-model")
    said = "".join(capsys.readouterr())
    assert code == 1 and said.startswith("unlearn: the chat template"), said
    assert quoted(left, said) == set()
    assert not os.path.exists(left / "run")
