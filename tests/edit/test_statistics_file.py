"""Statistics as a file: the same numbers on the other side, and nothing that was made of something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests import pico
from unlearn.edit import statistics_file
from unlearn.edit.corpus import Corpus
from unlearn.edit.statistics import MadeOf, Statistics, keep, key_statistics, made_of
from unlearn.errors import UnlearnError
from unlearn.model.editable import EditableModel
from unlearn.store import Store

TOKENS = 400


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return Corpus(str(path))


@pytest.fixture(scope="module")
def model() -> EditableModel:
    return pico.pico("llama")


@pytest.fixture(scope="module")
def found(model: EditableModel, corpus: Corpus) -> dict[int, Statistics]:
    return key_statistics(model, [0, 2], corpus, TOKENS)


@pytest.fixture
def origin(model: EditableModel, corpus: Corpus) -> MadeOf:
    return made_of(model, corpus, TOKENS)


@pytest.fixture
def file(tmp_path: Path, found: dict[int, Statistics], origin: MadeOf) -> Path:
    path = tmp_path / "statistics.safetensors"
    statistics_file.save(path, found, origin)
    return path


def test_what_is_imported_is_what_would_have_been_computed(
    file: Path, model: EditableModel, corpus: Corpus, found: dict[int, Statistics], tmp_path: Path
) -> None:
    cache, origin = Store.at(tmp_path / "cache"), made_of(model, corpus, TOKENS)
    for layer, there in statistics_file.load(file, model, origin):
        assert keep(cache, layer, there, origin)

    def unread(*_: object, **__: object) -> None:
        raise AssertionError("the corpus was read again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Corpus, "documents", unread)
        there = key_statistics(model, [0, 2], corpus, TOKENS, cache)
    assert there.keys() == found.keys()
    for layer, mine in found.items():
        assert torch.equal(mine.second, there[layer].second)
        assert torch.equal(mine.spectrum.values, there[layer].spectrum.values)
        assert torch.equal(mine.spectrum.vectors, there[layer].spectrum.vectors)
        assert mine.tokens == there[layer].tokens


def test_the_same_statistics_are_the_same_bytes(
    file: Path, tmp_path: Path, found: dict[int, Statistics], origin: MadeOf
) -> None:
    statistics_file.save(tmp_path / "again", found, origin)
    assert file.read_bytes() == (tmp_path / "again").read_bytes()


def edited(file: Path, change: Callable[[dict[str, torch.Tensor], dict[str, object]], None]) -> None:
    """Write a file anew, its tensors and what it says of them changed."""
    with safe_open(file, framework="pt") as there:
        tensors = {name: there.get_tensor(name).clone() for name in there.keys()}  # noqa: SIM118
        about = json.loads(there.metadata()[statistics_file.ABOUT])
    change(tensors, about)
    save_file(tensors, file, metadata={statistics_file.ABOUT: json.dumps(about)})


def refused(file: Path, model: EditableModel, origin: MadeOf) -> str:
    """The sentence with which a file is refused, before any of its layers is given."""
    with pytest.raises(UnlearnError) as problem:
        next(statistics_file.load(file, model, origin))
    assert str(file) in str(problem.value)
    return str(problem.value)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("model", "of another model"),
        ("dtype", "in another dtype"),
        ("tokenizer", "another tokenizer"),
        ("corpus", "of another corpus"),
        ("tokens", "another number of tokens"),
        ("format", "another version"),
    ],
)
def test_what_was_made_of_something_else_is_refused(
    file: Path, model: EditableModel, origin: MadeOf, key: str, says: str
) -> None:
    assert len(list(statistics_file.load(file, model, origin))) == 2
    assert says in refused(file, model, {**origin, key: "other"})


def test_one_changed_number_in_the_last_layer_stops_the_first(
    file: Path, model: EditableModel, origin: MadeOf
) -> None:
    edited(file, lambda tensors, _: tensors["2"][3, 3].mul_(1.5))
    assert "damaged (the numbers of layer 2 do not fit their hash)" in refused(file, model, origin)


def test_a_layer_left_out_is_noticed(file: Path, model: EditableModel, origin: MadeOf) -> None:
    edited(file, lambda tensors, _: tensors.pop("2") is None)
    assert "damaged (layers are missing)" in refused(file, model, origin)


def test_a_truncated_file_and_one_of_another_kind_are_refused(
    file: Path, model: EditableModel, origin: MadeOf, tmp_path: Path
) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(file, model, origin)
    file.write_bytes(b"words")
    assert "damaged" in refused(file, model, origin)
    save_file({"0": torch.zeros(2)}, file)
    assert "no file that `unlearn stats export` wrote" in refused(file, model, origin)
    assert "no key statistics" in refused(tmp_path / "nowhere", model, origin)


@pytest.mark.parametrize(
    "second",
    [torch.zeros(3, 3).double(), torch.full((64, 64), torch.inf).double(), -torch.eye(64).double()],
    ids=["shape", "infinite", "negative"],
)
def test_numbers_that_are_no_second_moment_are_refused_whatever_their_hash(
    file: Path, model: EditableModel, origin: MadeOf, second: torch.Tensor
) -> None:
    def forge(tensors: dict[str, torch.Tensor], about: dict[str, object]) -> None:
        tensors["2"] = second
        about["sha256"] = {name: statistics_file.sha256_of(tensor) for name, tensor in tensors.items()}

    edited(file, forge)
    assert "damaged (layer 2 is no" in refused(file, model, origin)
