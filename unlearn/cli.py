"""The command line: words, streams and exit codes. The commands themselves are in `unlearn.commands`.

Results go to stdout, progress and errors to stderr. Exit codes: 0 passed, 1 could not run, 2 bad usage or policy,
3 ran and the audit failed its limits (or `verify` found a difference), 129 hung up, 130 interrupted, 143 terminated.
A result that cannot be printed leaves the code as it is.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import click

from unlearn import signals, streams, sums, team
from unlearn.commands.apply import apply
from unlearn.commands.audit import audit
from unlearn.commands.check import check
from unlearn.commands.compare import compare
from unlearn.commands.export import export
from unlearn.commands.replies import replies
from unlearn.commands.report import report
from unlearn.commands.said import place_of, say
from unlearn.commands.stats import stats
from unlearn.commands.trace import trace
from unlearn.commands.verify import verify
from unlearn.errors import PolicyProblems, UnlearnError
from unlearn.shown import sentence
from unlearn.signals import Terminated
from unlearn.version import __version__

_FULL = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "no space left on the device for this user",
    errno.EFBIG: "a file is larger than this system, or its limit for a process (ulimit -f), allows",
}
"""What is said of the errors of a system that takes no more."""

# Without a handler Python prints warnings bare; commands say where they go.
logging.getLogger("unlearn").addHandler(logging.NullHandler())


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="unlearn %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (or set UNLEARN_DEBUG=1).")
def cli(debug: bool) -> None:
    """Make a language model stop answering what a policy forbids, and measure what that cost.

    It suppresses and measures; it does not erase, and no report of it says so.

    A first session, with the small model that ships with unlearn:

    \b
        unlearn check policies/demo.yaml
        unlearn apply policies/demo.yaml --out runs/first
        unlearn verify runs/first
        unlearn export runs/first edited-model

    Exit codes: 0 passed; 1 could not run; 2 bad usage or policy; 3 ran, and the audit failed its limits
    (verify: something differs); 129 hung up; 130 interrupted; 143 terminated.
    """
    if debug:
        os.environ["UNLEARN_DEBUG"] = "1"


for command in (check, apply, audit, replies, report, compare, export, verify, stats, trace):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code; of several processes, the first runs it."""
    _bear_any_letter()
    _quiet_libraries()
    sys.exit(team.led(lambda: run(arguments)))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; no exception leaves it."""
    _quiet_libraries()
    context: click.Context | None = None
    try:
        _somewhere()
        with signals.raising():
            # Not cli.main(): it answers a Ctrl-C with an empty line.
            given = list(sys.argv[1:] if arguments is None else arguments)
            with cli.make_context("unlearn", list(given), obj=given) as context:
                done = cli.invoke(context)
            sys.stdout.flush()
        code = done if isinstance(done, int) else 0
        lost = streams.why_lost(sys.stdout)
        if lost:
            _say("; ".join([f"the result could not be printed ({lost})", *_written(context)]), code)
        return code
    except click.exceptions.Exit as left:
        return left.exit_code
    except (click.Abort, KeyboardInterrupt, Terminated) as left:
        # Where the signal came inside an exec() of text (a dataclass being made during an import), Python has noted
        # an unhandled interrupt and would end by killing itself, whatever the exit code; the next exec() clears that.
        exec("")
        number = signals.ended_by(left)
        return _say(f"{signals.WORDS[number]}; {_remains(left, context)}", 128 + number)
    except sums.Parted as parted:
        return _say(str(parted), 1)
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "unlearn"
        return _say(f"{error.format_message().rstrip('.')} (see `{where} --help`)", 2)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except Exception as error:
        if _debug():
            say(traceback.format_exc(), err=True, nl=False)
        if isinstance(error, PolicyProblems):
            return _say_lines(error.lines, error.exit_code)
        if isinstance(error, UnlearnError):
            return _say(str(error), error.exit_code)
        return _say(_unexpected(error, context), 1)


def _somewhere() -> None:
    # Libraries end the process with words of their own where the folder that it was started in is gone.
    try:
        os.getcwd()
    except OSError:
        raise UnlearnError("the working folder no longer exists; change to one that does") from None


def _remains(left: BaseException, context: click.Context | None) -> str:
    # A command that keeps what it has finished says so in a note.
    return "; ".join([*getattr(left, "__notes__", ()), *_written(context)]) or "nothing was written"


def _written(context: click.Context | None) -> list[str]:
    place = None if context is None else place_of(context)
    return [] if place is None else [f"what was written is in {place}"]


def _debug() -> bool:
    return os.environ.get("UNLEARN_DEBUG", "") not in ("", "0")


def _say(text: str, code: int) -> int:
    return _say_lines([f"unlearn: {text}"], code)


def _say_lines(lines: Sequence[str], code: int) -> int:
    with contextlib.suppress(OSError):
        for line in lines:
            say(sentence(line), err=True)
    return code


def _unexpected(error: Exception, context: click.Context | None) -> str:
    full = _no_room(error)
    if full:
        name = getattr(error, "filename", None)
        return f"{full}{f' at {name}' if name else ''}; {_remains(error, context)}"
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return "out of memory; use a larger device, --dtype bfloat16, or a smaller model"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = sentence(str(error), 300)
    return f"unexpected {type(error).__name__}: {text}; `unlearn --debug ...` shows where, please report it"


def _no_room(error: BaseException | None) -> str:
    """In words, what there is too little of for a file; empty where that is not the reason."""
    while error is not None:
        for number, words in _FULL.items():
            # torch and safetensors wrap the system's error in one of their own.
            if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
                return words
        error = error.__cause__ or error.__context__
    return ""


def _quiet_libraries() -> None:
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)


def _bear_any_letter() -> None:
    """Write documents in UTF-8, as they say of themselves; a terminal that lacks a letter shows its number."""
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper) or out.encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        return
    if not out.isatty():
        out.reconfigure(encoding="utf-8", errors=out.errors)
    elif out.errors == "strict":
        out.reconfigure(errors="backslashreplace")
