"""Settings from options, names that must be known, and exit codes."""

import pytest

from benchmarks.options import chosen, guarded, numbers, settings_of
from unlearn.errors import PolicyError


def test_settings_by_method() -> None:
    changes = ["method.ridge=0.5", "rome.clamp=4", "alphaedit.layers=[1, 2]"]
    assert settings_of("rome", changes) == {"name": "rome", "ridge": 0.5, "clamp": 4}
    assert settings_of("alphaedit", changes) == {"name": "alphaedit", "ridge": 0.5, "layers": [1, 2]}
    for wrong in ("ridge=1", "method.ridge", "memt.ridge=1"):
        with pytest.raises(PolicyError, match="--set"):
            settings_of("rome", [wrong])


def test_names_and_numbers_are_checked() -> None:
    assert chosen("methods", "rome, memit", ("memit", "rome")) == ["rome", "memit"]
    with pytest.raises(PolicyError, match="--methods memt: unknown; known: memit, rome"):
        chosen("methods", "rome,memt", ("memit", "rome"))
    assert numbers("edits", "10,5", 1) == (5, 10)
    with pytest.raises(PolicyError, match="--edits"):
        numbers("edits", "0", 1)


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise PolicyError("no such thing")

    def stops() -> None:
        raise KeyboardInterrupt

    assert (
        guarded(lambda: None) == 0 and guarded(fails) == PolicyError("").exit_code and guarded(stops) == 130
    )
    assert "error: no such thing" in capsys.readouterr().err
