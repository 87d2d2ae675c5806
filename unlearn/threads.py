"""Threads of the libraries that compute: as many as this process has cores for, and none that waits long by spinning.

OpenMP's threads spin at the end of every small operation, by default, until the last has come. Where something else
takes one of the cores, each operation waits for its whole turn: two jobs side by side are several times slower than one
behind the other. Threads that sleep at once are slow where nothing else runs, since each must be woken. So they spin
for a few microseconds (docs/benchmarks.md). These settings are read when the library is loaded, so they stand in the
environment before torch is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""By which a user says how threads wait."""
SPINS = "1000"
"""Turns of GNU OpenMP's threads before they sleep."""
_MEMBERSHIP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def settle(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let threads wait with little spinning, and take no more of them than there are cores; what the user set, stays.

    It has no effect on a library that is loaded already.
    """
    if not any(name in environ for name in WAITING):
        environ["OMP_WAIT_POLICY"] = "passive"
        environ["GOMP_SPINCOUNT"] = SPINS
    mine = cores()
    if mine < _granted():  # the libraries see this themselves, and a quota they do not see
        environ.setdefault("OMP_NUM_THREADS", str(mine))


def cores(membership: Path = _MEMBERSHIP, groups: Path = _GROUPS) -> int:
    """Whole cores that this process may use at a time: those it is bound to, as far as its quota goes.

    Args:
        membership: names the process's control group (version 2).
        groups: where control groups lie.
    """
    return max(1, min([_granted(), *_quotas(membership, groups)]))


def _granted() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(membership: Path, groups: Path) -> Iterator[int]:
    """Whole cores by the limit of each control group around the process; nothing where there is none."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    place = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    inner = groups / place
    for group in (inner, *inner.parents):
        try:
            quota, period = (group / "cpu.max").read_text().split()
            yield int(quota) // int(period)  # "max" is no number
        except (OSError, ValueError):
            pass
        if group == groups:
            return
