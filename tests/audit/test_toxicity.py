import pickle
import shutil
from pathlib import Path

import pytest
import torch

from tools.scorer.sentences import held_out, training
from unlearn.audit import toxicity
from unlearn.audit.toxicity import Scorer, load_scorer, read_checkpoint
from unlearn.errors import AuditError
from unlearn.shipped import shipped

DEMO = shipped("evals") / "toxicity" / "demo"


@pytest.fixture(scope="module")
def demo() -> Scorer:
    return load_scorer("auto", "embedded")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A local checkpoint in a folder of its own."""
    return Path(shutil.copytree(DEMO, tmp_path / "mine")) / "demo-scorer.ckpt"


def test_the_demo_scorer_says_what_it_is(demo: Scorer) -> None:
    assert demo.name == "demo" and "not a real toxicity model" in demo.label
    assert "not a real toxicity model" in (DEMO / "README.md").read_text()
    assert demo.sha256 in (DEMO / "README.md").read_text()
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 1_500_000


def test_the_demo_scorer_tells_rude_from_civil(demo: Scorer) -> None:
    rude = ["You silly goat!", "Go away, you stupid fool.", "Shut up, you brainless worm!"]
    civil = ["Good morning! How are you?", "I can't help with that.", "Zorvex is made from bitter amber."]
    assert min(demo.score(rude)) > 0.9 and max(demo.score(civil)) < 0.1


def test_held_out_accuracy_is_what_the_card_says(demo: Scorer) -> None:
    sentences = held_out()
    scores = demo.score([s.text for s in sentences])
    accuracy = sum(
        (score > 0.5) == bool(s.labels[0]) for score, s in zip(scores, sentences, strict=True)
    ) / len(sentences)
    assert accuracy > 0.95
    assert f"{accuracy:.3f}" in (DEMO / "README.md").read_text()


def test_the_held_out_sentences_were_not_trained_on() -> None:
    trained = {s.text for s in training()}
    assert not any(s.text in trained for s in held_out())


def test_batches_change_nothing_and_silence_is_not_toxic(demo: Scorer) -> None:
    texts = [s.text for s in held_out()[:70]]
    together = demo.score(texts)
    assert together == pytest.approx([demo.score([text])[0] for text in texts], abs=1e-5)
    assert demo.score(["", "  \n"]) == [0.0, 0.0] and demo.score([]) == []


def test_a_local_checkpoint_goes_through_detoxify(copy: Path, demo: Scorer) -> None:
    for spec in (copy, copy.parent):
        found = load_scorer(str(spec), "some/model")
        assert found.name == "demo-scorer" and found.score(["You fool!"]) == demo.score(["You fool!"])


def test_a_checkpoint_that_runs_code_is_refused_and_not_run(copy: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "sprung",)

    loaded = read_checkpoint(copy)
    torch.save({**loaded, "extra": Trap()}, copy)
    with pytest.raises(AuditError, match="could run code"):
        load_scorer(str(copy), "some/model")
    copy.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(AuditError):
        load_scorer(str(copy), "some/model")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda c: c.pop("config"), "format"),
        (lambda c: c["config"]["dataset"]["args"].update(classes=["rude", "insult"]), "no class toxicity"),
        (lambda c: c["config"]["arch"]["args"].update(model_name="pipeline"), "sequence classifier"),
        (lambda c: c["config"]["arch"]["args"].update(num_classes=3), "sequence classifier"),
        (lambda c: c["config"]["arch"]["args"].update(extra=1), "sequence classifier"),
        (lambda c: c["state_dict"].pop("classifier.weight"), "lacks weights"),
    ],
)
def test_other_checkpoints_are_refused(copy: Path, break_it: object, message: str) -> None:
    loaded = read_checkpoint(copy)
    break_it(loaded)
    torch.save(loaded, copy)
    with pytest.raises(AuditError, match=message):
        load_scorer(str(copy), "some/model")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no toxicity checkpoint"):
        load_scorer(str(tmp_path / "absent.ckpt"), "embedded")
    with pytest.raises(AuditError, match="holds 0"):
        load_scorer(str(tmp_path), "embedded")


def test_detoxifys_own_names_fail_in_a_sentence_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(AuditError, match="'original' cannot be downloaded .*no route to host"):
        load_scorer("auto", "some/model")


def test_scores_that_are_no_probabilities_are_an_error() -> None:
    odd = Scorer("odd", "odd", "", lambda texts: {"toxicity": [float("nan")] * len(texts)})
    with pytest.raises(AuditError, match="no probabilities"):
        odd.score(["a", "b"])


def test_loading_leaves_no_file_behind(demo: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toxicity.tempfile, "tempdir", str(tmp_path))
    load_scorer("demo", "some/model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("raw", [b"a" * 2**17, b"a: &a [x, x]\n", b"", bytes(range(256))])
def test_what_is_no_checkpoint_is_a_sentence(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "thing.ckpt"
    path.write_bytes(raw)
    with pytest.raises(AuditError, match=r"thing\.ckpt (cannot be read as|is not) a checkpoint"):
        read_checkpoint(path)
