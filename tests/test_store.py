"""The store: what was flipped, edited, swapped or half-written is not there; another's store is not used."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.files import small_disk_at
from unlearn.errors import UnlearnError
from unlearn.store import HEAD, LENGTH, SECRET, Store, cache_folder, seal, unsealed

KEY, OTHER = b"k" * LENGTH, b"o" * LENGTH
STRANGER = 12345
"""A user id that is not ours."""


@given(st.binary(max_size=300), st.integers(0, 10**6), st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_noticed(content: bytes, at: int, bit: int) -> None:
    sealed = bytearray(seal(KEY, "name", content) + content)
    assert unsealed(KEY, "name", bytes(sealed)) == content
    sealed[at % len(sealed)] ^= 1 << bit
    assert unsealed(KEY, "name", bytes(sealed)) is None


def test_a_seal_is_of_one_secret_one_name_and_one_content() -> None:
    sealed = seal(KEY, "a", b"one", b"two") + b"onetwo"
    assert unsealed(KEY, "a", sealed) == b"onetwo"  # however it was cut into pieces
    assert unsealed(KEY, "b", sealed) is None and unsealed(OTHER, "a", sealed) is None
    assert unsealed(KEY, "a", b"") is None and unsealed(KEY, "a", sealed[: HEAD - 1]) is None
    # The border between name and content belongs to what is sealed.
    assert seal(KEY, "a", b"bc") != seal(KEY, "ab", b"c")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "cache")


def test_what_is_kept_is_found_by_the_next_run_and_by_this_user_alone(store: Store) -> None:
    assert store.find("some/name") is None and not store.has("some/name")
    assert store.keep("some/name", b"one ", b"two") and store.keep("empty")
    again = Store.at(store.folder)
    assert again.find("some/name") == b"one two" and again.find("empty") == b"" and again.has("empty")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in [store.folder, *store.folder.rglob("*")]}
    assert modes == {"cache": 0o700, SECRET: 0o600, "some": 0o700, "name": 0o600, "empty": 0o600}
    assert repr(store.secret) not in repr(store)


Damage = Callable[[Store, Path], object]
DAMAGES: dict[str, Damage] = {
    "swapped": lambda store, file: file.write_bytes((store.folder / "other").read_bytes()),
    "edited": lambda store, file: file.write_bytes(file.read_bytes().replace(b"true", b"null")),
    "cut": lambda store, file: os.truncate(file, HEAD + 2),
    "emptied": lambda store, file: os.truncate(file, 0),
    "longer": lambda store, file: file.write_bytes(file.read_bytes() + b" "),
    "without a seal": lambda store, file: file.write_bytes(b"true"),
    "sealed elsewhere": lambda store, file: file.write_bytes(seal(OTHER, "one", b"true") + b"true"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_was_damaged_is_not_there_and_is_made_anew_with_a_warning(
    damage: Damage, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.keep("one", b"true"), store.keep("other", b"true")
    assert store.find("one") == b"true" and not caplog.text
    damage(store, store.folder / "one")
    assert store.find("one") is None
    assert "one does not fit its seal" in caplog.text and "made anew" in caplog.text
    store.keep("one", b"true")
    assert store.find("one") == b"true"


def test_what_is_no_file_is_not_waited_for(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(store.folder / "pipe")
    (store.folder / "zero").symlink_to("/dev/zero")
    (store.folder / "folder").mkdir()
    assert [store.find(name) for name in ("pipe", "zero", "folder")] == [None] * 3


# --- whose it is


@pytest.fixture
def as_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process runs as another user, as far as it can see."""
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)


def test_another_users_store_is_not_used(store: Store, as_stranger: None) -> None:
    with pytest.raises(UnlearnError, match="cache belongs to another user"):
        Store.at(store.folder)
    assert Store.existing(store.folder) is None


def test_a_secret_of_another_user_is_not_used(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("giving a file away needs root")
    store = Store.at(tmp_path)
    os.chown(store.folder / SECRET, STRANGER, -1)
    with pytest.raises(UnlearnError, match="secret belongs to another user"):
        Store.at(tmp_path)


@pytest.mark.parametrize(("name", "mode", "says"), [
    (".", 0o770, "may be written by others: chmod go-w it"),
    (".", 0o703, "may be written by others: chmod go-w it"),
    (SECRET, 0o640, "may be read by others: chmod go-rwx it"),
    (SECRET, 0o604, "may be read by others: chmod go-rwx it"),
])  # fmt: skip
def test_a_store_that_others_can_get_at_is_not_used(store: Store, name: str, mode: int, says: str) -> None:
    (store.folder / name).chmod(mode)
    with pytest.raises(UnlearnError, match=says):
        Store.at(store.folder)
    (store.folder / name).chmod(0o700 if name == "." else 0o600)
    assert Store.at(store.folder) == store


def test_that_others_may_read_the_folder_is_no_reason(store: Store) -> None:
    store.folder.chmod(0o755)
    assert Store.at(store.folder) == store


def test_a_damaged_secret_is_said_and_not_replaced(store: Store) -> None:
    (store.folder / SECRET).write_bytes(b"short")
    with pytest.raises(UnlearnError, match=r"secret is damaged: remove it"):
        Store.at(store.folder)
    assert (store.folder / SECRET).read_bytes() == b"short"


# --- at once, on a full disk, where nothing may be written

RACE = """
import sys, time
from pathlib import Path
from unlearn.store import Store
folder, mine = Path(sys.argv[1]), sys.argv[2].encode()
while not (folder / "go").exists():
    time.sleep(0.001)
store = Store.at(folder / "cache")
for turn in range(150):
    store.keep("shared/file", mine * 50_000)
    found = store.find("shared/file")
    assert found is not None and bytes(found) in (b"a" * 50_000, b"b" * 50_000), turn
print(store.secret.hex())
"""


def test_two_processes_share_a_store_from_its_first_moment(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path), letter],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        for letter in "ab"
    ]  # fmt: skip
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0] and all("seal" not in err for _, err in said)
    assert sorted(os.listdir(tmp_path / "cache")) == [SECRET, "shared"]
    assert os.listdir(tmp_path / "cache" / "shared") == ["file"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from small_disk_at(tmp_path / "disk", "16k")


def test_a_full_disk_keeps_what_was_there(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store.at(small_disk / "cache")
    assert store.keep("one", b"old")
    with caplog.at_level("INFO"):
        assert not store.keep("one", b"new" * 20_000)
    assert os.strerror(errno.ENOSPC) in caplog.text
    assert store.find("one") == b"old" and sorted(os.listdir(store.folder)) == ["one", SECRET]


def test_a_disk_without_room_for_a_secret_is_no_store(small_disk: Path) -> None:
    (small_disk / "cache").mkdir(mode=0o700)
    with pytest.raises(OSError), (small_disk / "filler").open("wb") as filler:
        while True:
            filler.write(b"x" * 1000)
            filler.flush()
    with pytest.raises(UnlearnError, match=os.strerror(errno.ENOSPC)):
        Store.at(small_disk / "cache")
    assert os.listdir(small_disk / "cache") == []


def test_a_store_that_may_only_be_read_is_used_as_it_is(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for mounted in small_disk_at(disk, "64k"):
        store = Store.at(mounted)
        store.keep("one", b"1")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        again = Store.at(mounted)
        assert again.find("one") == b"1" and not again.keep("two", b"2") and again.find("two") is None


def test_what_a_killed_process_left_half_written_is_swept_a_day_later(store: Store) -> None:
    old, new = store.folder / ".partial-old", store.folder / ".partial-new"
    old.touch(), new.touch()
    os.utime(old, (0, 0))
    Store.at(store.folder)
    assert new.exists() and not old.exists()


# --- where it is


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UNLEARN_CACHE", "~/kept")
    assert cache_folder() == tmp_path / "kept"
    monkeypatch.delenv("UNLEARN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")
    assert cache_folder() == tmp_path / "xdg" / "unlearn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "unlearn"


def test_a_home_folder_of_nobody_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNLEARN_CACHE", "~no-such-user/cache")
    with pytest.raises(UnlearnError, match="~no-such-user is no home folder here"):
        Store.at(cache_folder())
    assert os.listdir(tmp_path) == []


def test_looking_for_a_store_makes_none(tmp_path: Path) -> None:
    assert Store.existing(tmp_path / "cache") is None
    assert os.listdir(tmp_path) == []
