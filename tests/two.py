"""This process as the first of two, over gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unlearn import cli

HELPING = "import sys; from unlearn import team; sys.exit(team.led(lambda: 99))"
"""A process that helps."""
OPTIONS = ("--device", "cpu", "--no-cache", "--quiet")


@contextmanager
def beside(monkeypatch: pytest.MonkeyPatch, program: str) -> Iterator[subprocess.Popen[str]]:
    """This process is the first of two, and the other runs a program."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in {**shared, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    environment = {
        **os.environ,
        **shared,
        "RANK": "1",
        "LOCAL_RANK": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as other:
        try:
            yield other
        finally:
            other.kill()


def ended(*arguments: str | Path) -> object:
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    return left.value.code
