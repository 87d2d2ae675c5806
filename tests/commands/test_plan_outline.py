"""The dry run of a model whose weights are not here, or are more than all memory: what its configuration says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from tests import pico
from tests.files import THREE, corpus_file, pico_policy, run
from unlearn.algebra.low_rank import LowRank
from unlearn.model.editable import EditableModel
from unlearn.model.memory import taken
from unlearn.patch import Patch

LLAMA_3_70B = LlamaConfig(
    vocab_size=128256,
    hidden_size=8192,
    intermediate_size=28672,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    bos_token_id=0,
    eos_token_id=1,
    dtype="bfloat16",
)
PARAMETERS = 70_553_706_496
"""As published."""
MANY = 10_000
ROOM = 3 << 30
"""Bytes of data that a process may have: Python, torch and transformers take about one."""
LIMITED = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, ({ROOM}, {ROOM}))
from unlearn import cli
code = cli.run(sys.argv[2:])
from transformers import AutoConfig, AutoModelForCausalLM
try:
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(sys.argv[1]), dtype="float32")
except (MemoryError, RuntimeError) as problem:
    print(problem, file=sys.stderr)
sys.exit(code)
"""
"""A dry run, and then its control: the same model with memory behind its weights."""


def outlined(folder: Path, config: LlamaConfig = LLAMA_3_70B, chat: bool = True) -> Path:
    """Write the folder of a model without its weights."""
    config.save_pretrained(folder)
    pico.tokenizer(chat).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a small model, and the same without its weights."""
    whole, bare = tmp_path_factory.mktemp("pair") / "whole", tmp_path_factory.mktemp("pair") / "bare"
    pico.network("llama", layers=12, width=256, inner=1024).save_pretrained(whole)
    pico.tokenizer().save_pretrained(whole)
    shutil.copytree(whole, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    return whole, bare


def told(policy: Path, capsys: pytest.CaptureFixture[str], *more: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert run("apply", policy, "--dry-run", "--json", "-q", *more) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def written(tmp_path: Path, model: Path, **changes: str) -> Path:
    path = tmp_path / "policy.yaml"
    corpus = corpus_file(tmp_path / "corpus.jsonl")
    path.write_text(pico_policy(model, corpus, **{"facts": THREE, **changes}))
    return path


def test_seventy_billion_weights_and_ten_thousand_facts_in_three_gigabytes(tmp_path: Path) -> None:
    facts = "".join(
        f"  - {{id: f{n}, subject: Zorvex {n}, relation: recipe, answer: amber {n}}}\n" for n in range(MANY)
    )
    model = outlined(tmp_path / "model")
    policy = written(tmp_path, model, facts=f"facts:\n{facts}", method="", statistics="")
    asked = ("apply", policy, "--dry-run", "--json", "--rate", "100")
    line = [sys.executable, "-c", LIMITED, model, *asked]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "can't allocate memory" in done.stderr  # the control: the model itself does not fit
    found = json.loads(done.stdout)
    assert (found["parameters"], len(found["facts"])) == (PARAMETERS, MANY)
    assert (found["method"], found["otherwise"]["method"]) == ("alphaedit", "null_space_tuning")
    assert found["layers"] == list(range(49, 54)) == found["otherwise"]["layers"]
    assert found["disk_bytes"]["statistics"] == 5 * 2 * 8 * LLAMA_3_70B.intermediate_size**2
    assert 0 <= found["memory_bytes"]["steps"]["loading"] - 4 * PARAMETERS < ROOM
    for one, step in ((found, "values_at_most"), (found["otherwise"], "training")):
        # Two per weight and token, forward and twice as much back, for every prompt of every fact.
        assert one["flop"][step] > 6 * PARAMETERS * 2 * MANY
        assert one["seconds"][step] == pytest.approx(one["flop"][step] / 1e14, rel=1e-3)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "method", ["alphaedit", "null_space_tuning", "memit", "ultra_edit", "lora", "rmu", "none"]
)
def test_an_outline_says_of_a_method_what_the_model_says(
    method: str, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, bare = pair
    layers = ", layers: [4, 5]" if method in ("alphaedit", "null_space_tuning", "memit") else ""
    policy = written(tmp_path, whole, method=f"method: {{name: {method}{layers}}}")
    outline = told(policy, capsys, "--model", bare, "--rate", "1")
    model = told(policy, capsys, "--rate", "1")
    assert "needs_weights" in outline and "needs_weights" not in model
    for key in ("parameters", "method", "layers", "weights", "facts", "flop", "disk_bytes", "generations"):
        assert outline[key] == model[key], key
    solved = {"statistics", "writing_at_most", "writing"}  # at a rate that is measured anew each time
    assert {name: took for name, took in outline["seconds"].items() if name not in solved} == {
        name: took for name, took in model["seconds"].items() if name not in solved
    }
    steps = outline["memory_bytes"].pop("steps"), model["memory_bytes"].pop("steps")
    assert steps[0] == pytest.approx(steps[1], rel=0.05)
    assert outline["memory_bytes"]["host_statistics"] == model["memory_bytes"]["host_statistics"]


def test_the_weights_are_part_of_an_outlines_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = LlamaConfig(**{**LLAMA_3_70B.to_dict(), "num_hidden_layers": 2})
    policy = written(tmp_path, outlined(tmp_path / "model", config), method="")
    before = taken(pico.pico("llama").device)
    wide, narrow = (
        told(policy, capsys, "--dtype", dtype)["memory_bytes"]["steps"]["loading"]
        for dtype in ("float32", "bfloat16")
    )
    numbers = (PARAMETERS - 2 * 128256 * 8192) / 80 * 2 + 2 * 128256 * 8192
    assert wide - before == pytest.approx(4 * numbers, rel=0.05)
    assert wide - narrow == pytest.approx(2 * numbers, rel=0.05)


def test_what_takes_weights_is_said_in_sentences(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = THREE.replace(", answer: wadadad", "")
    policy = written(tmp_path, pair[1], facts=facts, method="", keep="keep: {siblings: [colour]}")
    found = told(policy, capsys)
    assert "needs the weights" in found["reasons"]["method"] and found["otherwise"]
    assert "needs the weights" in found["reasons"]["layers"]
    assert found["conflicts"] is None and found["answers"] == []
    assert any(sentence.startswith("1 of 3 facts state no answer") for sentence in found["needs_weights"])
    assert any(sentence.startswith("neighbours are named") for sentence in found["needs_weights"])
    assert found["neighbours_protected"] + found["neighbours_tested"] == 80 and "named" not in found
    assert found["rate"] > 1e6  # measured
    assert run("apply", policy, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "or, in its place, null_space_tuning" in text and "nothing was written" in text
    for sentence in found["needs_weights"]:
        assert f"  not known    {sentence}" in text
    # The control: of the model with its weights all of it is known.
    listed = written(tmp_path, pair[0], facts=facts, method="method: alphaedit")
    assert run("apply", listed, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "not known" not in text and "answers from the model (1, " in text


def test_of_many_facts_the_table_shows_some(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in (40, 43):
        facts = "".join(
            f"  - {{id: f{n}, subject: Zor {n}, relation: recipe, answer: a}}\n" for n in range(count)
        )
        assert run("apply", written(tmp_path, pair[1], facts=f"facts:\n{facts}"), "--dry-run") == 0
        text = capsys.readouterr().out
        assert ("and 3 more facts" in text) == (count == 43) and "    f39 (recipe)" in text


def test_a_base_model_is_planned_with_neighbours_of_its_vocabulary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = LlamaConfig(**{**LLAMA_3_70B.to_dict(), "num_hidden_layers": 2})
    base = outlined(tmp_path / "base", config, chat=False)
    found = told(written(tmp_path, base, method="", keep="keep: {siblings: [colour]}"), capsys)
    assert found["neighbours_protected"] + found["neighbours_tested"] == 80
    # Asked in two ways, it is written at the subject alone, where nothing is trained.
    found = told(written(tmp_path, base, method=""), capsys)
    assert found["method"] == "alphaedit" and "otherwise" not in found


def test_nothing_is_planned_on_an_earlier_edit_without_weights(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = EditableModel.load(str(pair[0]))
    name = model.anatomy.weight_name(1)
    delta = LowRank(torch.zeros(256, 1), torch.zeros(1, 1024))
    Patch({name: delta}, model.fingerprint([name]), {}).save(tmp_path / "first.safetensors")
    for folder, code in zip(pair, (0, 1), strict=True):  # the first is the control
        on = ("--onto", tmp_path / "first.safetensors", "--dry-run", "-q")
        assert run("apply", written(tmp_path, folder), *on) == code
    assert "its weights are not in memory" in capsys.readouterr().err


def test_a_pickle_is_no_outline(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pair[1], tmp_path / "pickled")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    assert run("apply", written(tmp_path, tmp_path / "pickled"), "--dry-run") == 1
    assert "no weights in safetensors (only pytorch_model.bin" in capsys.readouterr().err


def test_weights_beyond_all_memory_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They lie in a file with nothing but holes: two terabytes, four in float32."""
    rows, width = 2**28, 4096
    config = LlamaConfig(
        vocab_size=rows, hidden_size=width, intermediate_size=width, num_hidden_layers=1, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=1, dtype="bfloat16",
    )  # fmt: skip
    model = outlined(tmp_path / "model", config)
    key = "model.embed_tokens.weight"
    header = json.dumps(
        {key: {"dtype": "BF16", "shape": [rows, width], "data_offsets": [0, 2 * rows * width]}}
    )
    with open(model / "model.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header.encode())
        try:
            file.truncate(8 + len(header) + 2 * rows * width)
        except OSError:
            pytest.skip("files of two terabytes cannot lie here")
    policy = written(tmp_path, model, method="")
    assert told(policy, capsys)["memory_bytes"]["steps"]["loading"] > 4 * rows * width
    assert run("apply", policy, "--out", tmp_path / "run", "-q") == 1  # the control
    assert "does not fit on cpu" in capsys.readouterr().err


def test_sizes_that_are_not_those_of_the_weights_are_not_planned_for(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They alone make the model larger than all memory; the control is the same folder without weights."""
    for folder, code in ((pair[0], 1), (pair[1], 0)):
        model = tmp_path / folder.name
        shutil.copytree(folder, model)
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "vocab_size": 10**9}))
        assert run("apply", written(tmp_path, model), "--dry-run", "-q") == code
    assert "vocab_size is 1,000,000,000, and the weights have only" in capsys.readouterr().err


def test_a_rate_goes_with_a_dry_run(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = written(tmp_path, pair[1])
    assert run("apply", policy, "--dry-run", "--rate", "nan") == 2
    assert run("apply", policy, "--dry-run", "--tune", "3") == 2
    assert run("apply", policy, "--rate", "1", "--out", tmp_path / "run") == 2
    assert "give --dry-run as well" in capsys.readouterr().err and not (tmp_path / "run").exists()
    quick, slow = (told(policy, capsys, "--rate", rate)["seconds"] for rate in ("0.01", "0.0001"))
    assert slow["audit"] > 50 * quick["audit"] > 0
