"""Statistics: one pass gives what a naive loop gives; the cache is never found by another model or corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import pico
from unlearn.edit.corpus import Corpus
from unlearn.edit.statistics import key_statistics
from unlearn.errors import UnlearnError
from unlearn.model.encoding import text_ids
from unlearn.model.forward import read
from unlearn.store import Store


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return path


def kept(cache: Store) -> set[Path]:
    return set(cache.folder.glob("keys-*"))


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_one_pass_for_all_layers_equals_a_loop_over_documents(family: str, text: Path) -> None:
    model = pico.pico(family)
    got = key_statistics(model, [0, 2], Corpus(str(text)), 10_000)
    rows = [text_ids(model.tokenizer, line) for line in text.read_text(encoding="utf-8").splitlines()]
    keys = read(model, rows, [range(len(row)) for row in rows], [0, 2]).keys
    for layer in (0, 2):
        exact = keys[layer].double() @ keys[layer].double().T / keys[layer].shape[1]
        assert got[layer].tokens == keys[layer].shape[1]
        torch.testing.assert_close(got[layer].second, exact, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(got[0].second, got[2].second, rtol=1e-2)


def test_nothing_above_the_deepest_layer_is_computed(text: Path) -> None:
    model = pico.pico("llama")
    ran: list[int] = []
    handles = [
        model.anatomy.block(model.model, layer).register_forward_hook(
            lambda *_, layer=layer: ran.append(layer)
        )
        for layer in range(model.anatomy.layers)
    ]
    key_statistics(model, [0, 1], Corpus(str(text)), 1000)
    for handle in handles:
        handle.remove()
    assert set(ran) == {0}  # block 1 ends inside its MLP


def test_the_cache_is_reused_and_depends_on_the_model_the_corpus_and_the_count(
    text: Path, tmp_path: Path
) -> None:
    cache, model = Store.at(tmp_path / "cache"), pico.pico("llama")
    first = key_statistics(model, [1], Corpus(str(text)), 400, cache)
    files = kept(cache)
    assert len(files) == 1
    again = key_statistics(model, [1], Corpus(str(text)), 400, cache)
    assert torch.equal(again[1].second, first[1].second) and kept(cache) == files
    key_statistics(pico.pico("llama", seed=1), [1], Corpus(str(text)), 400, cache)
    key_statistics(model, [1], Corpus(str(text)), 500, cache)
    curved = pico.pico("llama")  # the same weights
    curved.model.config.rms_norm_eps = 0.1
    key_statistics(curved, [1], Corpus(str(text)), 400, cache)
    text.write_text(text.read_text(encoding="utf-8") + "\none more line", encoding="utf-8")
    key_statistics(model, [1], Corpus(str(text)), 400, cache)
    assert len(kept(cache)) == 5


def test_a_damaged_cache_file_is_computed_anew(text: Path, tmp_path: Path) -> None:
    cache, model = Store.at(tmp_path / "cache"), pico.pico("llama")
    first = key_statistics(model, [1], Corpus(str(text)), 400, cache)
    next(iter(kept(cache))).write_bytes(b"cut off")
    assert torch.equal(key_statistics(model, [1], Corpus(str(text)), 400, cache)[1].second, first[1].second)


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether products with both are added up in the same order: the same bits, strides, and place in a cache line."""
    return torch.equal(one, other) and one.stride() == other.stride() and not other.data_ptr() % 64


def test_what_is_read_is_what_was_made_bit_for_bit_and_laid_out_alike(text: Path, tmp_path: Path) -> None:
    cache, model = Store.at(tmp_path / "cache"), pico.pico("llama")
    made = key_statistics(model, [0, 1], Corpus(str(text)), 400, cache)
    read = key_statistics(model, [0, 1], Corpus(str(text)), 400, cache)
    for layer in made:
        assert alike(made[layer].second, read[layer].second)
        assert alike(made[layer].spectrum.values, read[layer].spectrum.values)
        assert alike(made[layer].spectrum.vectors, read[layer].spectrum.vectors)
        assert made[layer].tokens == read[layer].tokens


def test_swapped_layers_and_one_flipped_bit_are_noticed(
    text: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, model = Store.at(tmp_path / "cache"), pico.pico("llama")
    made = key_statistics(model, [0, 1], Corpus(str(text)), 400, cache)
    first, second = sorted(kept(cache))

    def swap() -> None:
        one, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other), second.write_bytes(one)

    def flip() -> None:
        whole = bytearray(first.read_bytes())
        whole[-1000] ^= 1
        first.write_bytes(whole)

    for damage, files in ((swap, (first, second)), (flip, (first,))):
        damage()
        caplog.clear()
        again = key_statistics(model, [0, 1], Corpus(str(text)), 400, cache)
        assert [torch.equal(again[layer].second, made[layer].second) for layer in (0, 1)] == [True, True]
        assert sorted(r.getMessage().split()[0] for r in caplog.records) == [str(file) for file in files]


def test_too_small_a_corpus_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Too short.", encoding="utf-8")
    with pytest.raises(UnlearnError, match="128 or more are needed"):
        key_statistics(pico.pico("llama"), [1], Corpus(str(tmp_path / "short.txt")), 1000)


def test_long_documents_are_cut_to_the_context_and_begin_with_bos(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("amber and wet stone " * 400, encoding="utf-8")
    got = key_statistics(pico.pico("gpt2"), [0], Corpus(str(tmp_path / "long.txt")), 100_000)
    assert got[0].tokens > 128


def test_a_corpus_is_a_file_a_folder_or_jsonl_with_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"text": "three"}) + "\n" + json.dumps("four") + "\n", encoding="utf-8"
    )
    assert list(Corpus(str(tmp_path)).documents()) == ["one", "two", "three", "four"]
    assert list(Corpus(str(tmp_path / "a.txt")).documents()) == ["one", "two"]
    assert Corpus(str(tmp_path)).fingerprint() != Corpus(str(tmp_path / "a.txt")).fingerprint()


def test_a_bad_corpus_says_where(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\nnot json\n', encoding="utf-8")
    with pytest.raises(UnlearnError, match=r"bad.jsonl:2 is not JSON"):
        list(Corpus(str(tmp_path / "bad.jsonl")).documents())
    (tmp_path / "no.jsonl").write_text('{"body": "x"}\n', encoding="utf-8")
    with pytest.raises(UnlearnError, match=r"no.jsonl:1 holds no `text`"):
        list(Corpus(str(tmp_path / "no.jsonl")).documents())
    with pytest.raises(UnlearnError, match="no file or folder /nowhere/at/all"):
        Corpus("/nowhere/at/all").documents()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnlearnError, match="holds no .txt or .jsonl"):
        list(Corpus(str(tmp_path / "empty")).documents())
    with pytest.raises(UnlearnError, match="cannot read the data set no-such-owner/no-such-set"):
        list(Corpus("no-such-owner/no-such-set").documents())
