"""Running third-party code without its chatter and without leaving traces in the random generators."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import warnings
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow prints, bars, warnings and log lines; restore the state of the random generators.

    lm-eval seeds Python's, numpy's and torch's generators, and prints bars that cannot be switched off.
    """
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    sink = io.StringIO()
    try:
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def sentence(problem: BaseException, most: int = 240) -> str:
    """The first line of an exception, with its type where the text alone says little."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    name = type(problem).__name__
    text = f"{name}: {text}" if text else name
    return text if len(text) <= most else text[: most - 3] + "..."
