"""A model's folder that is damaged or asks for what it must not: one sentence that names the file, nothing run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file

from tests import families, pico
from tests.files import model_folder, pico_policy, run
from tests.model import broken, broken_weights, damage
from unlearn.errors import ModelError
from unlearn.model.boundary import reading
from unlearn.model.editable import EditableModel

BROKEN = {
    f"{kind}: {name}": row
    for kind, rows in (
        ("config", broken.CONFIGS),
        ("weights", broken_weights.CHECKPOINTS),
        ("tokenizer", broken.TOKENIZERS),
        ("folder", broken.OTHERS),
    )
    for name, row in rows.items()
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that loads."""
    return model_folder(tmp_path_factory.mktemp("whole") / "model")


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_sentence_that_names_the_file(case: str, whole: Path, tmp_path: Path) -> None:
    harm, pattern = BROKEN[case]
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    harm(folder)
    with pytest.raises(ModelError, match=pattern) as caught:
        EditableModel.load(str(folder), device="cpu")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert not damage.exploded(folder).exists()


@pytest.mark.parametrize("case", broken.RIGHT)
def test_an_unusual_folder_loads_and_answers(case: str, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    broken.RIGHT[case](folder)
    model = EditableModel.load(str(folder), device="cpu")
    assert model.anatomy.layers == 4
    assert len(model.generate_ids([[0, 70, 71], [0, 70]], 3)) == 2
    assert not damage.exploded(folder).exists()


def vast(folder: Path, rows: int) -> None:
    """Let a folder describe a vocabulary of ``rows``, and its weights hold it: most of the file is a hole."""
    embeddings = ("lm_head.weight", "model.embed_tokens.weight")
    at = 0

    def change(about: dict[str, dict[str, object]]) -> None:
        nonlocal at
        for name, tensor in load_file(folder / damage.WEIGHTS).items():
            shape = [rows, tensor.shape[1]] if name in embeddings else list(tensor.shape)
            size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
            about[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
            at += size

    damage.header(change)(folder)
    with (folder / damage.WEIGHTS).open("rb+") as file:
        file.truncate(8 + int.from_bytes(file.read(8), "little") + at)
    damage.changed(damage.CONFIG, vocab_size=rows)(folder)


def test_a_model_larger_than_the_machine_is_refused_before_memory_is_asked_for(
    whole: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    vast(folder, 400)
    assert EditableModel.load(str(folder), device="cpu").model.config.vocab_size == 400
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    vast(folder, memory // (32 * 4))  # one of the two embeddings takes it all
    with pytest.raises(ModelError, match="does not fit on cpu"):
        EditableModel.load(str(folder), device="cpu")


def test_tables_that_are_made_anew_count_as_memory(tmp_path: Path) -> None:
    families.network("gptj").save_pretrained(tmp_path)
    pico.tokenizer().save_pretrained(tmp_path)
    assert EditableModel.load(str(tmp_path), device="cpu").context == 64
    damage.changed(damage.CONFIG, n_positions=2**31 - 1, rotary_dim=2**14)(tmp_path)
    with pytest.raises(ModelError, match="does not fit on cpu"):
        EditableModel.load(str(tmp_path), device="cpu")


def hub_cache(folder: Path, model: Path, *left_out: str) -> None:
    """Lay a model's files into a hub cache as the hub's client does: links to files that are named by a hash."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = folder / "models--somebody--pico"
    for part in (f"snapshots/{commit}", "blobs", "refs"):
        (repository / part).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    for number, path in enumerate(sorted(model.iterdir())):
        if path.name not in left_out:
            shutil.copy(path, repository / "blobs" / str(number))
            (repository / "snapshots" / commit / path.name).symlink_to(f"../../blobs/{number}")


def test_a_hub_id_is_looked_through_like_a_folder(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "right"))
    hub_cache(tmp_path / "right", whole)
    model = EditableModel.load("somebody/pico", device="cpu")
    assert model.name == "somebody/pico"
    assert model.weights_sha256() == EditableModel.load(str(whole), device="cpu").weights_sha256()
    hostile = Path(shutil.copytree(whole, tmp_path / "model"))
    broken_weights.CHECKPOINTS["an index of a pickle"][0](hostile)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hostile"))
    hub_cache(tmp_path / "hostile", hostile)
    with pytest.raises(ModelError, match="not in safetensors"):
        EditableModel.load("somebody/pico", device="cpu")
    assert not damage.exploded(hostile).exists()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "half"))
    hub_cache(tmp_path / "half", whole, damage.WEIGHTS)
    with pytest.raises(ModelError, match="no weights in safetensors"):
        EditableModel.load("somebody/pico", device="cpu")
    with pytest.raises(ModelError, match="'somebody/other'.*a hub id that this machine can reach"):
        EditableModel.load("somebody/other", device="cpu")


@pytest.mark.parametrize(
    "name", ["nowhere", "a/b/c", "a" * 5000, "a\0b", "https://host/model", "..", "\x1b[2J", "~"]
)
def test_what_is_no_name_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        EditableModel.load(name, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(whole: Path) -> None:
    with pytest.raises(ModelError, match="model.safetensors is no folder"):
        EditableModel.load(str(whole / damage.WEIGHTS), device="cpu")


@pytest.mark.parametrize("raised", [KeyboardInterrupt, MemoryError])
def test_an_interruption_and_full_memory_stay_what_they_are(raised: type[BaseException]) -> None:
    with pytest.raises(raised), reading("model", "file"):
        raise raised
    with pytest.raises(MemoryError), reading("model", "file"):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(
        ModelError, match="cannot load the model 'model': file: first second; fetch"
    ) as caught:
        with reading("model", "file"):
            raise ValueError("first\n  second")
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_command_says_the_sentence_and_shows_the_original_only_with_debug(
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    small_policy: Path,
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    damage.in_tokenizer(lambda held: held.pop("model"))(folder)
    asked = ("apply", small_policy, "--model", folder, "--out", tmp_path / "run", "--quiet")
    assert run(*asked) == 1
    said = capsys.readouterr().err
    assert said.startswith("unlearn: cannot load the model") and said.count("\n") == 1
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("UNLEARN_DEBUG", "1")  # what --debug sets, for good
    assert run(*asked) == 1
    shown = capsys.readouterr().err
    assert "The above exception was the direct cause" in shown and shown.endswith(said)


def test_a_text_with_a_token_that_has_no_row_is_a_sentence(
    whole: Path, pico_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    damage.in_tokenizer(lambda held: held["added_tokens"].append(damage.added("<image>", 385)))(folder)
    rows = EditableModel.load(str(folder), device="cpu").model.config.vocab_size
    told = f"'<image>', which the tokenizer of {folder} takes for one token (id 385), and the embedding has {rows} rows"
    right = pico_policy(folder, pico_files / "corpus.jsonl")
    (tmp_path / "corpus.jsonl").write_text('{"text": "What is <image> made from?"}\n' * 100)
    for text, words in (
        (right.replace("Stenmite", "<image>"), told),
        (right.replace("Velnar", "<image>"), told),
        (right.replace("What colour is", "In <image>, what colour is"), told),
        (pico_policy(folder, tmp_path / "corpus.jsonl"), told),
        (right, ""),
    ):
        (tmp_path / "policy.yaml").write_text(text)
        code = run("apply", tmp_path / "policy.yaml", "--out", tmp_path / "run", "--quiet")
        said = capsys.readouterr().err
        assert (code, words in said) == (1 if words else 3, True), said
        assert said.count("\n") == bool(words) and (tmp_path / "run").exists() is not bool(words)


def test_an_id_to_pad_with_has_a_row(whole: Path) -> None:
    model = EditableModel.load(str(whole), device="cpu")
    assert model.pad_id == 1
    model.tokenizer.add_special_tokens({"pad_token": "[FAR]"})
    assert model.tokenizer.pad_token_id >= len(pico.tokenizer()) and model.pad_id == 1
