"""unlearn: make a language model stop answering what a policy forbids, and measure what that cost.

The whole way in one call, or step by step; the names below are all that a caller needs:

    import unlearn

    report = unlearn.run("policies/demo.yaml", out="runs/first")

    policy = unlearn.load_policy("policies/demo.yaml")
    model = unlearn.load_model(policy.model)
    requests = unlearn.resolve(model, policy)
    patch = unlearn.edit(model, requests)
    report = unlearn.audit(model, patch, requests)

Importing this package imports nothing heavy: a name is looked up when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from unlearn.version import __version__ as __version__

if TYPE_CHECKING:
    from unlearn.edit.pipeline import edit
    from unlearn.edit.requests.resolve import resolve
    from unlearn.errors import AuditError, ModelError, PatchError, PolicyError, PolicyProblems, UnlearnError
    from unlearn.loaded import load_model
    from unlearn.order import Means, Placement
    from unlearn.patch import Patch
    from unlearn.policy import Policy
    from unlearn.policy.file import load_policy
    from unlearn.report import Report
    from unlearn.run import audit, run

__all__ = [
    "AuditError",
    "Means",
    "ModelError",
    "Patch",
    "PatchError",
    "Placement",
    "Policy",
    "PolicyError",
    "PolicyProblems",
    "Report",
    "UnlearnError",
    "audit",
    "edit",
    "load_model",
    "load_policy",
    "resolve",
    "run",
]

_HOMES = {
    "unlearn.edit.requests.resolve": ("resolve",),
    "unlearn.edit.pipeline": ("edit",),
    "unlearn.errors": (
        "AuditError",
        "ModelError",
        "PatchError",
        "PolicyError",
        "PolicyProblems",
        "UnlearnError",
    ),
    "unlearn.patch": ("Patch",),
    "unlearn.policy": ("Policy",),
    "unlearn.policy.file": ("load_policy",),
    "unlearn.report": ("Report",),
    "unlearn.order": ("Means", "Placement"),
    "unlearn.loaded": ("load_model",),
    "unlearn.run": ("audit", "run"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_STEPS = frozenset({"audit", "edit", "run"})
"""Steps of which a module of this package has the name as well: the module can be called."""


class _Step(ModuleType):
    """A module that is called as the function of its name: ``unlearn.edit`` is a room, and the step made there."""

    @property
    def __wrapped__(self) -> object:
        """The function, for ``inspect.signature`` and whoever shows its documentation."""
        name = self.__name__.rpartition(".")[2]
        return getattr(import_module(_HOME[name]), name)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Take the step."""
        step = self.__wrapped__
        assert callable(step)
        return step(*args, **kwargs)


class _Package(ModuleType):
    """This package: its names are looked up when they are used, whatever was imported before."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _STEPS and isinstance(value, ModuleType):
            value.__class__ = _Step  # the import system puts a module here, once it is loaded
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'unlearn' has no attribute {name!r}")
        if name in _STEPS:
            return import_module(f"unlearn.{name}")
        return getattr(import_module(_HOME[name]), name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
