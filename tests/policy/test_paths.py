"""A path in a policy leads to the same file from wherever the command is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.files import policy_text, run
from unlearn.errors import PolicyError
from unlearn.policy import Policy
from unlearn.policy.file import load_policy
from unlearn.policy.paths import moved

KEYS = {
    "model": "model: {}",
    "tokenizer": "tokenizer: {}",
    "statistics.corpus": "statistics: {{corpus: {}}}",
    "audit.control": "audit: {{control: {}}}",
    "audit.suite": "audit: {{suite: {}}}",
    "audit.toxicity": "audit: {{toxicity: {}}}",
    "audit.text": "audit: {{text: {}}}",
    "audit.benign": "audit: {{benign: {}}}",
    "audit.lookalike": "audit: {{lookalike: {}}}",
}
NAMES = {"model", "tokenizer", "statistics.corpus", "audit.control"}
"""Keys whose values may be names on a hub as well."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a policy's folder `mine`, a home folder `home`, and the working folder `work`."""
    for name in ("mine", "home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def value(policy: Policy, key: str) -> str:
    found: object = policy
    for part in key.split("."):
        found = getattr(found, part)
    return str(found)


def loaded(here: Path, key: str, written: str, **overrides: str) -> str:
    path = here / "mine" / "p.yaml"
    path.write_text(policy_text(changed=KEYS[key].format(written)))
    return value(load_policy(path, {k.replace("__", "."): v for k, v in overrides.items()}), key)


@pytest.mark.parametrize("key", KEYS)
def test_a_path_is_relative_to_the_policys_folder(here: Path, key: str) -> None:
    for folder in ("mine", "work"):  # one of the same name in the working folder makes no difference
        (here / folder / "file.yaml").touch()
    assert loaded(here, key, "file.yaml") == str(here / "mine" / "file.yaml")
    assert loaded(here, key, "./file.yaml") == str(here / "mine" / "file.yaml")
    assert Path(loaded(here, key, "../mine/file.yaml")).samefile(here / "mine" / "file.yaml")


@pytest.mark.parametrize("key", KEYS)
def test_home_and_absolute_paths_stand_by_themselves(here: Path, key: str) -> None:
    for place in ("home", "work"):
        (here / place / "file.yaml").touch()
    assert loaded(here, key, "~/file.yaml") == str(here / "home" / "file.yaml")
    assert loaded(here, key, str(here / "work" / "file.yaml")) == str(here / "work" / "file.yaml")


@pytest.mark.parametrize("key", KEYS)
def test_a_path_that_leads_somewhere_from_the_working_folder_alone_is_a_problem(here: Path, key: str) -> None:
    (here / "work" / "file.yaml").touch()
    with pytest.raises(PolicyError) as caught:
        loaded(here, key, "file.yaml")
    assert f"p.yaml:13 {key}  there is no file.yaml in the policy's folder ({here / 'mine'})" in str(
        caught.value
    )
    assert f"--set {key}=PATH" in str(caught.value)


@pytest.mark.parametrize("key", KEYS)
def test_on_the_command_line_a_path_is_relative_to_the_working_folder(here: Path, key: str) -> None:
    for place in ("mine", "work", "home"):
        (here / place / "file.yaml").touch()
    given = key.replace(".", "__")
    assert loaded(here, key, "/other.yaml", **{given: "file.yaml"}) == "file.yaml"
    assert loaded(here, key, "/other.yaml", **{given: "~/file.yaml"}) == str(here / "home" / "file.yaml")
    if "." in key:  # the whole block given at once
        block, last = key.split(".")
        assert loaded(here, key, "/other.yaml", **{block: f"{{{last}: file.yaml}}"}) == "file.yaml"


@pytest.mark.parametrize("key", KEYS)
def test_what_is_nowhere_is_a_name_on_a_hub_or_a_path_beside_the_policy(here: Path, key: str) -> None:
    expected = "owner/name.yaml" if key in NAMES else str(here / "mine" / "owner/name.yaml")
    assert loaded(here, key, "owner/name.yaml") == expected
    assert loaded(here, key, "./name.yaml") == str(here / "mine" / "name.yaml")


def test_what_lies_beside_a_policy_moves_with_it(here: Path) -> None:
    for name in ("text.txt", "owner"):
        (here / "mine" / name).touch()
    (here / "home" / "q.txt").touch()
    path = here / "mine" / "p.yaml"
    path.write_text(policy_text(model="model: owner/name", audit="audit: {text: text.txt, benign: ~/q.txt}"))
    given = {"audit.lookalike": "text.txt"}
    found = moved(load_policy(path, given), here / "mine", here / "elsewhere")
    assert found.model == "owner/name"
    assert found.audit.text == str(here / "elsewhere" / "text.txt")
    assert found.audit.benign == str(here / "home" / "q.txt") and found.audit.lookalike == "text.txt"
    assert moved(found, here / "elsewhere", here / "mine") == load_policy(path, given)


def test_words_stay_words_even_where_files_are_called_like_them(here: Path) -> None:
    words = {
        "model": ["embedded", "Qwen/Qwen2.5-7B-Instruct"],
        "statistics.corpus": ["auto", "embedded", "own", "wikimedia/wikipedia:20231101.en"],
        "audit.control": ["auto", "none", "embedded"],
        "audit.suite": ["quick", "full"],
        "audit.toxicity": ["auto", "original", "unbiased-small"],
        "audit.text": ["auto"],
        "audit.lookalike": ["auto"],
    }
    for word in {word for some in words.values() for word in some if "/" not in word}:
        (here / "work" / word).touch()
        (here / "mine" / word).touch()
    for key, some in words.items():
        for word in some:
            assert loaded(here, key, word) == word


def test_every_scorer_that_detoxify_names_is_a_word() -> None:
    from detoxify.detoxify import MODEL_URLS

    from unlearn.policy.paths import _SCORERS

    assert set(MODEL_URLS) <= set(_SCORERS)


def test_the_policy_itself_may_lie_at_home(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "home" / "p.yaml").write_text(policy_text(audit="audit: {suite: mine.yaml}"))
    (here / "home" / "mine.yaml").write_bytes(b"\xef\xbb\xbfextends: quick\r\nremove: [refusal]\r\n")
    assert run("check", "~/p.yaml") == 0
    assert str(here / "home" / "mine.yaml") in capsys.readouterr().out
    assert run("check", "--suite", "~/mine.yaml") == 0


def test_measurements_are_found_again_from_another_folder_and_not_for_another_text(
    pico_files: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unlearn.audit.cache import _key
    from unlearn.edit.requests.resolve import outline
    from unlearn.model.editable import EditableModel

    model = EditableModel.load(str(pico_files / "model"), "cpu")
    for name, held in (("text.txt", "One.\n"), ("lines.txt", "Who?\n"), ("mine.yaml", "extends: quick\n")):
        (here / "mine" / name).write_text(held)
    audit = "audit: {text: text.txt, benign: lines.txt, suite: mine.yaml}"
    (here / "mine" / "p.yaml").write_text(policy_text(audit=audit))

    def key(path: str) -> str:
        return _key(model, outline(load_policy(path)), "before")

    first = key("../mine/p.yaml")
    monkeypatch.chdir(here / "mine")
    assert key("p.yaml") == key(str(here / "mine" / "p.yaml")) == first
    for name in ("text.txt", "lines.txt", "mine.yaml"):
        kept = (here / "mine" / name).read_text()
        (here / "mine" / name).write_text("extends: standard\n" if "yaml" in name else "Another?\n")
        assert key("p.yaml") != first
        (here / "mine" / name).write_text(kept)
    assert key("p.yaml") == first
