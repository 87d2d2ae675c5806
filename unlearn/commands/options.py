"""The options that several commands have, and what the overriding ones say."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from unlearn.files import at_home
from unlearn.order import Placement
from unlearn.policy.method import METHOD_NAMES

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
force = click.option("--force", is_flag=True, help="Replace what an earlier run wrote there.")
no_cache = click.option(
    "--no-cache", is_flag=True, help="Neither read nor write cached statistics and measurements."
)
tokenizer_elsewhere = click.option(
    "--tokenizer", metavar="PLACE", help="The tokenizer, where that was given apart and now lies elsewhere."
)


class Place(click.Path):
    """A path on the command line: a shell leaves the `~` of `--out=~/run` to the command."""

    def __init__(self, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Return it as a Path, with `~` as the home folder."""
        path = at_home(os.fspath(value))
        try:
            os.stat(path)
        except PermissionError as problem:
            if self.exists:  # click would say that it does not
                self.fail(f"{path} cannot be read: {problem.strerror}", param, ctx)
        except OSError:
            pass
        except ValueError:
            self.fail("no path holds a null character", param, ctx)
        return super().convert(path, param, ctx)


def model_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options about where and how a model runs; the command takes them as one `placement`."""

    @wraps(command)
    def placed(
        *, device: str, device_map: str | None, dtype: str, trust_remote_code: bool, **given: Any
    ) -> int:
        return command(placement=Placement(device, dtype, trust_remote_code, device_map), **given)

    for option in (
        click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model."),
        click.option(
            "--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16."
        ),
        click.option(
            "--device-map",
            metavar="auto|FILE",
            help="Spread one model over GPUs, the host's memory and the disk: by itself, or as a JSON file says.",
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ..."),
    ):
        placed = option(placed)
    return placed


def policy_overrides(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that stand in for keys of the policy file; the command takes them as one `given`."""

    @wraps(command)
    def overridden(
        *,
        model: str | None,
        method: str | None,
        tokenizer: str | None,
        settings: tuple[str, ...],
        **rest: Any,
    ) -> int:
        return command(given=overrides(model, method, settings, tokenizer=tokenizer), **rest)

    for option in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override one key of the policy, such as method.steps=20; may be repeated.",
        ),
        click.option(
            "--tokenizer",
            metavar="PLACE",
            help="Override `tokenizer`: a folder or hub id with the tokenizer of a model that has none.",
        ),
        click.option("--method", help="Override `method.name`: " + ", ".join(METHOD_NAMES) + "."),
        click.option(
            "--model",
            help="Override `model`: a hub id, a local folder, a GGUF file, package:NAME, or embedded.",
        ),
    ):
        overridden = option(overridden)
    return overridden


def _quoted(text: str) -> str:
    """As YAML text, since a folder may be called 2024 or no."""
    return "'" + text.replace("'", "''") + "'"


def audit_overrides(command: Callable[..., int]) -> Callable[..., int]:
    """As `policy_overrides`, and `--suite`."""

    @wraps(command)
    def overridden(*, suite: str | None, given: dict[str, str], **rest: Any) -> int:
        return command(given=given | overrides(suite=suite), **rest)

    said = "Override `audit.suite`: quick, standard, full, or the path of a suite's YAML file."
    return click.option("--suite", help=said)(policy_overrides(overridden))


def overrides(
    model: str | None = None,
    method: str | None = None,
    settings: tuple[str, ...] = (),
    suite: str | None = None,
    tokenizer: str | None = None,
) -> dict[str, str]:
    """Turn the override options into what `load_policy` takes.

    Raises:
        click.BadParameter: if a --set is not KEY=VALUE.
    """
    found: dict[str, str] = {}
    if method is not None:
        found["method.name"] = method
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"expected KEY=VALUE, got {setting!r}", param_hint="--set")
        found[key.strip()] = value
    for key, text in (("tokenizer", tokenizer), ("model", model), ("audit.suite", suite)):
        if text is not None:
            found[key] = _quoted(text)
    return found
