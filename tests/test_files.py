"""Files that somebody else wrote are read within bounds, in UTF-8, and never wait for anybody."""

from __future__ import annotations

import codecs
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn import files
from unlearn.errors import AuditError, UnlearnError

READERS: list[Callable[[Path], object]] = [
    files.read_bytes,
    files.read_text,
    files.read_lines,
    files.read_json,
    files.read_yaml,
    lambda path: list(files.stream_lines(path)),
]


def written(folder: Path, content: bytes) -> Path:
    path = folder / "file.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_file_is_a_sentence_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    try:
        monkeypatch.chdir(tmp_path)  # a socket's path may not be long
        listener.bind("socket")
        for path, words in {
            tmp_path / "pipe": "it is a pipe",
            tmp_path / "socket": "it is a socket",
            tmp_path: "it is a folder",
            Path("/dev/zero"): "it is a device",
            tmp_path / "none": "No such file",
            tmp_path / ("x" * 500): "File name too long",
            tmp_path / "a\0b": "null character",
        }.items():
            with pytest.raises(UnlearnError, match=words):
                read(path)
    finally:
        listener.close()


def test_an_error_names_the_file_what_it_is_and_has_the_class_asked_for(tmp_path: Path) -> None:
    with pytest.raises(AuditError) as caught:
        files.read_text(tmp_path / "none", "the audit suite", error=AuditError)
    assert (
        str(caught.value) == f"the audit suite {tmp_path / 'none'} cannot be read: No such file or directory"
    )


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_marks_and_line_ends_make_no_difference(tmp_path: Path, mark: bytes, ends: str) -> None:
    path = written(tmp_path, mark + ends.join(["één", "", "दाल\u2028x", "end", ""]).encode())
    lines = ["één", "", "दाल\u2028x", "end"]
    assert files.read_text(path) == "\n".join([*lines, ""])
    assert files.read_lines(path) == lines
    assert list(files.stream_lines(path)) == lines


@pytest.mark.parametrize(
    "content, words",
    [
        ("one\ntwo".encode("utf-16"), "file.txt is UTF-16 text; save the file as UTF-8"),
        ("one\ntwo".encode("utf-16-be"), "file.txt is not text: it holds null characters"),
        (b"one\ntwo \xff", "file.txt:2: not UTF-8 text; save the file as UTF-8"),
        (b"one\ntwo \xed\xa0\x80", "file.txt:2: not UTF-8 text"),
        (b"one\ntwo \0", "file.txt is not text: it holds null characters"),
    ],
)
def test_what_is_not_utf8_is_named_with_its_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = written(tmp_path, content)
    for read in (files.read_text, lambda path: list(files.stream_lines(path))):
        with pytest.raises(UnlearnError, match=words):
            read(path)


@given(st.text().map(lambda text: text.replace("\0", "")))
def test_any_text_comes_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(text, encoding="utf-8-sig", newline="")
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    assert files.read_text(path) == expected
    assert list(files.stream_lines(path)) == files.read_lines(path)


def test_a_file_or_a_line_beyond_the_bound_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, b"x" * 100)
    assert len(files.read_bytes(path, most=100)) == 100
    with pytest.raises(UnlearnError, match="larger than 99 bytes"):
        files.read_text(path, most=99)
    monkeypatch.setattr(files, "LONGEST_LINE", 99)
    with pytest.raises(UnlearnError, match="file.txt:1: a line longer"):
        list(files.stream_lines(path))


@pytest.mark.parametrize(
    "text, words",
    [
        ('{"a": 1,\n "b"}', "line 2"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "too many digits"),
        (r'"\ud800"', "half of a surrogate pair"),
    ],
)
def test_json_that_is_none_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UnlearnError, match=words):
        files.read_json(written(tmp_path, text.encode()))


def test_json_and_yaml_are_what_they_hold(tmp_path: Path) -> None:
    held = {"a": [1, 2.5, None, "é\u2028", "\U0001f600"]}
    assert files.read_json(written(tmp_path, json.dumps(held).encode("utf-8-sig"))) == held
    assert files.read_yaml(written(tmp_path, b"\xef\xbb\xbfa: [1, 2.5, null]\r\n")) == {"a": [1, 2.5, None]}


@pytest.mark.parametrize(
    "text, words",
    [
        ("a: [1,\nb: }", "file.txt:2: not valid YAML"),
        ("a: &x [1]\nb: *x", "file.txt:2: not valid YAML: aliases"),
        ("- " + "[" * 50_000, "nested too deeply"),
        ("a: 2020-13-45", "a value is not what it looks like"),
        ("a: " + "1" * 5000, "file.txt:1: not valid YAML: a number beyond 64 bits"),
        ("a: 0x" + "f" * 17, "a number beyond 64 bits"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \x07", "characters that YAML does not allow"),
    ],
)
def test_yaml_that_is_none_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UnlearnError, match=words):
        files.read_yaml(written(tmp_path, text.encode()))


def test_paths_are_relative_to_the_file_that_they_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    folder = Path("policies")
    assert files.beside("text.txt", folder) == "policies/text.txt"
    assert files.beside("text.txt", Path()) == "text.txt"
    assert files.beside("~/text.txt", folder) == "/home/somebody/text.txt" == files.at_home("~/text.txt")
    assert files.beside("/text.txt", folder) == "/text.txt"
    assert files.beside("~nobody-of-this-name/x", folder) == "policies/~nobody-of-this-name/x"
    assert not files.exists("x" * 10_000) and not files.exists("a\0b") and files.exists(Path("/"))
