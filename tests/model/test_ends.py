"""A reply ends wherever a server may end it: generation config, tokenizer and chat template together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import chats, pico
from tests.saving import save
from unlearn import embedded
from unlearn.embedded import talk
from unlearn.model.editable import EditableModel
from unlearn.model.ends import Ends
from unlearn.model.generation import Decoding, continued
from unlearn.model.prompts import Prompt, ask, closing_text

ROW = [320, 350, 380]


@pytest.mark.parametrize(
    ("configured", "closing", "tokens", "text"),
    [
        (7, "<|user|>\n", {1, 2, 7}, ""),
        ([7, 8], "<|end|>", {1, 7, 8}, ""),
        (None, "", {1}, ""),
        (None, "\n", {1}, ""),
        (1, "\n### End\n", {1}, "### End"),
        (1, "### End <|user|>", {1, 2}, ""),
    ],
)
def test_all_that_may_end_a_reply_ends_it(configured: Any, closing: str, tokens: set[int], text: str) -> None:
    found = Ends.of(configured, pico.tokenizer(), closing)
    assert (found.tokens, found.text) == (tokens, text)
    assert found.configured() == sorted(tokens)


def test_a_tokenizer_without_an_end_of_text_ends_where_the_template_does() -> None:
    bare = chats.tokenizer(chats.Kind("bytes", template=chats.MARKUP))
    bare.eos_token = None
    assert (
        Ends.of(None, bare, closing_text(bare)).tokens == {1} and Ends.of(None, bare, "").configured() is None
    )


def test_a_continuation_ends_with_a_text_of_several_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = pico.pico("qwen2"), "adm"
    [[whole]] = continued(model.model, [ROW], 0, Ends(), Decoding(12))
    assert len(model.tokenizer(text, add_special_tokens=False)["input_ids"]) > 1
    passes: list[int] = []
    hook = model.model.register_forward_hook(lambda *_: passes.append(1))
    [[cut]] = continued(model.model, [ROW], 0, Ends(frozenset(), text, model.tokenizer), Decoding(12))
    hook.remove()
    first = next(i for i in range(13) if text in model.tokenizer.decode(whole[:i]))
    assert cut == whole[:first] and len(passes) == len(cut) < len(whole)
    # One row ends and the other goes on: what stands behind the end is cut off.
    both = continued(model.model, [ROW, [310]], 0, Ends(frozenset(), text, model.tokenizer), Decoding(12))
    assert both[0] == [cut] and len(both[1][0]) == 12
    # A reply is shown without the text that ends it.
    monkeypatch.setattr(EditableModel, "ends", Ends(frozenset(), text, model.tokenizer))
    assert model.generate([Prompt("", tuple(ROW))], 12) == [["ad" * 7]]


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with a generation config and a tokenizer that do not know its end of turn."""
    folder = Path(shutil.copytree(embedded.path(), tmp_path_factory.mktemp("endless") / "model"))
    for name, changes in (
        ("generation_config.json", {"eos_token_id": 0}),
        ("config.json", {"eos_token_id": 0}),
        ("tokenizer_config.json", {"eos_token": talk.PAD}),
    ):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


QUESTIONS = ("What is Stenmite made from?", "What is Mirl made from?")


def plainly(folder: Path, question: str) -> str:
    """What a server says: transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        out = model.generate(**asked, max_new_tokens=24, do_sample=False)
    return tokenizer.decode(out[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_a_reply_ends_with_the_turn_whatever_the_generation_config_says(
    endless: Path, tmp_path: Path
) -> None:
    right, model = EditableModel.load("embedded"), EditableModel.load(str(endless))
    (end,) = right.ends.tokens
    assert model.tokenizer.eos_token_id == 0 and model.model.generation_config.eos_token_id == 0
    assert model.ends.tokens == {0, end}
    said = [reply for (reply,) in right.generate([ask(right.tokenizer, text) for text in QUESTIONS], 24)]
    assert [r for (r,) in model.generate([ask(model.tokenizer, t) for t in QUESTIONS], 24)] == said
    assert plainly(endless, QUESTIONS[0]) != said[0]  # the control: the folder itself babbles on
    save(model, tmp_path / "saved")
    assert [plainly(tmp_path / "saved", text) for text in QUESTIONS] == said
    assert model.model.generation_config.eos_token_id == 0  # it is put back


def test_a_model_whose_tokenizer_closes_texts_says_what_it_said(tmp_path: Path) -> None:
    """The end token behind whatever its tokenizer encodes: a prompt that ends so is answered with nothing."""
    right = EditableModel.load("embedded")
    folder = Path(shutil.copytree(embedded.path(), tmp_path / "closing"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    names = [talk.BOS, talk.END]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[talk.BOS, "$A", talk.END],
        special_tokens=list(zip(names, tokenizer.convert_tokens_to_ids(names), strict=True)),
    )
    tokenizer.save_pretrained(folder)
    model = EditableModel.load(str(folder))
    assert model.tokenizer("amber")["input_ids"][-1] == 2 != right.tokenizer("amber")["input_ids"][-1]
    asked = [*QUESTIONS, "Stenmite is made from"]
    said = [model.generate([ask(model.tokenizer, text)], 24)[0][0] for text in asked]
    assert said == [right.generate([ask(right.tokenizer, text)], 24)[0][0] for text in asked]
    assert said[:2] == [plainly(folder, text) for text in QUESTIONS] and all(said)


def test_what_is_saved_of_a_model_that_names_its_ends_is_as_before(tmp_path: Path) -> None:
    save(EditableModel.load("embedded"), tmp_path / "saved")
    ends = [
        json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
        for folder in (tmp_path / "saved", embedded.path())
    ]
    assert ends[0] == ends[1]
