"""The command line: words, streams and exit codes. The commands themselves are in `unlearn.commands`.

Results go to stdout, progress and errors to stderr. Exit codes: 0 passed, 1 could not run, 2 bad usage or policy,
3 ran and the audit failed its limits (or `verify` found a difference), 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import click

from unlearn import __version__
from unlearn.commands.apply import apply
from unlearn.commands.audit import audit
from unlearn.commands.check import check
from unlearn.commands.compare import compare
from unlearn.commands.export import export
from unlearn.commands.report import report
from unlearn.commands.said import say
from unlearn.commands.stats import stats
from unlearn.commands.trace import trace
from unlearn.commands.verify import verify
from unlearn.errors import PolicyProblems, UnlearnError
from unlearn.shown import sentence

# Without a handler Python prints warnings bare; commands say where they go.
logging.getLogger("unlearn").addHandler(logging.NullHandler())

INTERRUPTED, TERMINATED = 130, 143
AGAIN = 3.0
"""Seconds after which an interrupt that was not heard is raised again."""


class Terminated(BaseException):
    """The process was asked to end; raised so that half-written output is removed on the way out."""


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
    (verify: something differs); 130 interrupted; 143 terminated.
    """
    if debug:
        os.environ["UNLEARN_DEBUG"] = "1"


for command in (check, apply, audit, report, compare, export, verify, stats, trace):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    _bear_any_letter()
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; no exception leaves it, unless --debug asks for one."""
    _quiet_libraries()
    try:
        _somewhere()
        with _signals_raise():
            # Not cli.main(): it answers a Ctrl-C with an empty line.
            given = list(sys.argv[1:] if arguments is None else arguments)
            with cli.make_context("unlearn", list(given), obj=given) as context:
                code = cli.invoke(context)
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as left:
        return left.exit_code
    except (click.Abort, KeyboardInterrupt) as left:
        # Where the signal came inside an exec() of text (a dataclass being made during an import), Python has noted
        # an unhandled interrupt and would end by killing itself, whatever the exit code; the next exec() clears that.
        exec("")
        return _say(f"interrupted; {_remains(left)}", INTERRUPTED)
    except Terminated as left:
        return _say(f"terminated; {_remains(left)}", TERMINATED)
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "unlearn"
        return _say(f"{error.format_message().rstrip('.')} (see `{where} --help`)", 2)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except BrokenPipeError:
        _discard_stdout()
        return 1
    except PolicyProblems as error:
        if _debug():
            raise
        return _say_lines(error.lines, error.exit_code)
    except UnlearnError as error:
        if _debug():
            raise
        return _say(str(error), error.exit_code)
    except Exception as error:
        if _debug():
            raise
        return _say(_unexpected(error), 1)


def _somewhere() -> None:
    # Libraries end the process with words of their own where the folder that it was started in is gone.
    try:
        os.getcwd()
    except OSError:
        raise UnlearnError("the working folder no longer exists; change to one that does") from None


def _remains(left: BaseException) -> str:
    # A command that keeps what it has finished says so in a note.
    return "; ".join(getattr(left, "__notes__", ())) or "nothing was written"


def _debug() -> bool:
    return os.environ.get("UNLEARN_DEBUG", "") not in ("", "0")


def _say(text: str, code: int) -> int:
    return _say_lines([f"unlearn: {text}"], code)


def _say_lines(lines: Sequence[str], code: int) -> int:
    with contextlib.suppress(OSError):
        for line in lines:
            say(sentence(line), err=True)
    return code


def _unexpected(error: Exception) -> str:
    if _disk_is_full(error):
        name = getattr(error, "filename", None)
        if name is None:
            _discard_stdout()
        return f"no space left on the device{f' at {name}' if name else ''}; {_remains(error)}"
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return "out of memory; use a larger device, --dtype bfloat16, or a smaller model"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = sentence(str(error), 300)
    return f"unexpected {type(error).__name__}: {text}; `unlearn --debug ...` shows where, please report it"


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error):
            return True
        # torch and safetensors wrap the system's error in one of their own.
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _discard_stdout() -> None:
    # Python flushes stdout once more when it exits, and would complain about it.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let Ctrl-C and termination raise, and again every few seconds until it is heard.

    Libraries have bare excepts, most of all around their imports, in which the only Ctrl-C would be lost.
    """
    if threading.current_thread() is not threading.main_thread():  # the signals are somebody else's
        yield
        return
    alarm = getattr(signal, "SIGALRM", None)
    asked: list[int] = []

    def leave(number: int, frame: FrameType | None) -> Any:
        if number != alarm:
            asked.append(number)
        if alarm is not None:
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        raise Terminated if asked[-1] == signal.SIGTERM else KeyboardInterrupt

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, alarm) if number is not None]
    # One that is ignored stays so: nohup, or a shell's background job.
    kept = {n: signal.signal(n, leave) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        if alarm is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in kept.items():
            signal.signal(number, handler)


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
