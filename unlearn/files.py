"""Reading files that somebody else wrote: never more than a bound, never a pipe or a device, always UTF-8.

Every error is one sentence that names the file, in the class that the caller asks for.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from unlearn.errors import UnlearnError

Json: TypeAlias = Any
"""What stands in a JSON or YAML document: text, a number, a list, an object; whoever reads it looks what it is."""
JsonObject: TypeAlias = dict[str, Json]

MIB = 2**20
MOST = 256 * MIB
"""Bytes of a file that is read as a whole."""
LONGEST_LINE = 16 * MIB
"""Bytes of a line of a file that is read line by line."""
_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe, not a file; write what comes out of it to a file first"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
)
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Kind = type[UnlearnError]


@contextmanager
def opened(path: Path, what: str = "", error: Kind = UnlearnError) -> Iterator[BufferedReader]:
    """Open a file for reading, in bytes; a pipe, a device or a folder is an error at once.

    Args:
        what: what it is, for the sentence: "the audit suite".

    Raises:
        UnlearnError: in the class `error`: there is no such file, it is none, or it cannot be read.
    """
    name = _name(path, what)
    try:
        wrong = _not_a_file(path)
        if wrong:
            raise error(f"{name} cannot be read: {wrong}")
        with open(path, "rb", opener=_without_waiting) as file:
            yield file
    except OSError as problem:
        raise error(f"{name} cannot be read: {problem.strerror}") from None


def read_bytes(path: Path, what: str = "", most: int = MOST, error: Kind = UnlearnError) -> bytes:
    """Return a file's bytes, at most `most` of them; arguments and errors are those of `opened`."""
    with opened(path, what, error) as file:
        size = os.fstat(file.fileno()).st_size
        raw = (
            b"" if size > most else file.read(size + 1)
        )  # memory for as much is taken before anything is read
        if len(raw) > size:  # it grew meanwhile, or does not say its size
            raw += file.read(most + 1 - len(raw))
    if max(size, len(raw)) > most:
        bound = f"{most // MIB} MiB" if most >= MIB else f"{most} bytes"
        raise error(f"{_name(path, what)} cannot be read: it is larger than {bound}")
    return raw


def read_text(path: Path, what: str = "", most: int = MOST, error: Kind = UnlearnError) -> str:
    r"""Return a file's text: UTF-8 with or without a byte order mark, with ``\n`` at the end of every line.

    Arguments and errors are those of `opened`; a file larger than `most` bytes, or one that is not UTF-8, is an error.
    """
    return _decoded(read_bytes(path, what, most, error), _name(path, what), error)


def read_lines(path: Path, what: str = "", most: int = MOST, error: Kind = UnlearnError) -> list[str]:
    """Return the lines of a text file without their ends; as `read_text`.

    Other characters that Python's `splitlines` breaks at, such as U+2028, may stand in a line of JSON.
    """
    return _lines(read_text(path, what, most, error))


def stream_lines(path: Path, what: str = "", error: Kind = UnlearnError) -> Iterator[str]:
    """Give the lines of a text file of any size one by one; as `read_lines`, with a bound on a line only."""
    name = _name(path, what)
    with opened(path, what, error) as file:
        number = 0
        while raw := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(raw) > LONGEST_LINE:
                raise error(f"{name}:{number}: a line longer than {LONGEST_LINE // MIB} MiB")
            yield from _lines(_decoded(raw, name, error, number))


def read_json(path: Path, what: str = "", most: int = MOST, error: Kind = UnlearnError) -> object:
    """Return what a JSON file holds; as `read_text`, and text that is not JSON is an error."""
    return parse_json(read_text(path, what, most, error), _name(path, what), error)


def parse_json(text: str, where: str, error: Kind = UnlearnError) -> object:
    """Return what JSON text holds; `where` is its place, for the sentence (a file, or file:line)."""
    try:
        found: object = json.loads(text)
        if _HALF.search(text):
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError:
        raise error(f"{where} is not JSON: it holds half of a surrogate pair, which is no text") from None
    except json.JSONDecodeError as problem:
        line = f" (line {problem.lineno}: {problem.msg})" if "\n" in text else f" ({problem.msg})"
        raise error(f"{where} is not JSON{line}") from None
    except ValueError:
        raise error(f"{where} is not JSON: a number in it has too many digits") from None
    except RecursionError:
        raise error(f"{where} cannot be read: it is nested too deeply") from None


def text_in(line: str, where: str, error: Kind = UnlearnError) -> str:
    """Return the text of a .jsonl file's line: a JSON string, or the `text` of an object; errors as `parse_json`."""
    record = parse_json(line, where, error)
    text = record.get("text") if isinstance(record, dict) else record
    if not isinstance(text, str):
        raise error(f'{where} holds no `text`; a .jsonl file of texts has lines like {{"text": "..."}}')
    return text


class PlainLoader(yaml.SafeLoader):
    """The safe loader, without aliases (a few lines of them can unfold to gigabytes), and with numbers of 64 bits."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Build the next node, and refuse an alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", mark)
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Read a whole number, and refuse one that no machine counts with."""
        if len(node.value) <= 80:  # of 64 bits, with a sign, in base 2, and with room for underscores
            number: int = super().construct_yaml_int(node)
            if abs(number) < 2**63:
                return number
        raise yaml.constructor.ConstructorError(None, None, "a number beyond 64 bits", node.start_mark)


PlainLoader.add_constructor("tag:yaml.org,2002:int", PlainLoader.construct_yaml_int)


UNREADABLE = (ValueError, LookupError, AttributeError, TypeError, OverflowError)
"""What YAML's constructors raise for a scalar that does not hold what its tag or its looks say."""


def read_yaml(path: Path, what: str = "", most: int = MIB, error: Kind = UnlearnError) -> object:
    """Return what a YAML file holds; as `read_text`, and text that is not plain YAML is an error."""
    name = _name(path, what)
    text = read_text(path, what, most, error)
    try:
        return yaml.load(text, PlainLoader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise error(f"{where}: not valid YAML: {problem.problem or problem.context}") from None
    except yaml.YAMLError:
        raise error(f"{name}: not valid YAML: it holds characters that YAML does not allow") from None
    except UNREADABLE:
        raise error(
            f"{name}: not valid YAML: a value is not what it looks like; write it in quotes"
        ) from None
    except RecursionError:
        raise error(f"{name} cannot be read: it is nested too deeply") from None


def at_home(path: str) -> str:
    """Return a path with `~` replaced by the home folder."""
    return os.path.expanduser(path)


def beside(path: str, folder: Path) -> str:
    """Return a path that is written in a file of `folder`: relative to it, unless it is absolute or begins with `~`."""
    return str(folder / at_home(path))


def exists(path: str | Path) -> bool:
    """Say whether there is something at a path, or may be behind a folder that may not be entered.

    No name is too long or too odd to be asked for.
    """
    try:
        os.stat(path)
    except PermissionError:
        return True  # whoever reads it is told so
    except (OSError, ValueError):
        return False
    return True


def _name(path: Path, what: str) -> str:
    return f"{what} {path}" if what else str(path)


def _not_a_file(path: Path) -> str:
    """Why what lies at a path is not read; empty for a file."""
    try:
        mode = os.stat(path).st_mode
    except ValueError:
        return "no path holds a null character"
    return next((words for is_one, words in _KINDS if is_one(mode)), "")


def _without_waiting(path: str, flags: int) -> int:
    # Should it have become a pipe meanwhile, nobody waits for somebody to write to it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _decoded(raw: bytes, name: str, error: Kind, line: int = 1) -> str:
    if line == 1 and raw.startswith(_UTF16):
        raise error(f"{name} is UTF-16 text; save the file as UTF-8")
    try:
        text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as problem:
        line += raw[: problem.start].count(b"\n")
        raise error(f"{name}:{line}: not UTF-8 text; save the file as UTF-8") from None
    if "\0" in text:
        raise error(f"{name} is not text: it holds null characters")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file's bytes.

    Raises:
        UnlearnError: if the file cannot be read.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(folder: Path) -> str:
    """Return one sha256 over the names and contents of a folder's files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_of_file(path)}\n".encode())
    return digest.hexdigest()
