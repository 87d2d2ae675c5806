"""Bars for a person, silence for a pipe."""

from __future__ import annotations

import sys

import pytest

from unlearn.progress import NoProgress, RichProgress, progress_for


def test_silent_when_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(progress_for(), NoProgress)
    with progress_for().step("Values", total=3) as bar:
        bar.advance()
        bar.advance(2)
    assert capsys.readouterr() == ("", "")


def test_quiet_wins_over_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(progress_for(), RichProgress)
    assert isinstance(progress_for(quiet=True), NoProgress)


def test_bars_go_to_stderr_and_nest(capsys: pytest.CaptureFixture[str]) -> None:
    progress = RichProgress()
    with progress.step("Outer", total=2) as outer:
        with progress.step("Inner") as inner:
            inner.advance(5)
        outer.advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert "Outer" in err
    with progress.step("Again", total=1):
        pass


def test_an_error_leaves_the_display_closed() -> None:
    progress = RichProgress()
    with pytest.raises(RuntimeError, match="inside"), progress.step("Step", total=1):
        raise RuntimeError("inside")
    assert progress._display is None
    with progress.step("Next", total=1) as bar:
        bar.advance()
