"""What a candidate says at the prompts that count against it: asked anew, and kept nowhere.

An audit keeps outcomes and no text, so that what is passed on of it may be read by all. Whoever has the policy and the
model gets the same replies again: they are greedy, or sampled from the policy's seed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from unlearn.audit.asking import Heard, heard, sampling
from unlearn.audit.attacks.scene import Scene
from unlearn.audit.measures import asked_of
from unlearn.audit.observation import Observation
from unlearn.audit.observing import groups_of
from unlearn.audit.pair import asked_alike
from unlearn.audit.probes import Probe, build_probes
from unlearn.audit.shares import doubted
from unlearn.audit.suite import Suite, load_suite
from unlearn.matching import contains
from unlearn.measurements import named
from unlearn.model.editable import EditableModel
from unlearn.model.replies import GREEDY
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.report.measurement import rule_of


@dataclass(frozen=True)
class Reply:
    """A prompt that counts against the candidate."""

    key: str
    """As outcomes have it: the fact's id and the number of the prompt."""
    asked: str
    """The prompt, without the markup of a chat template."""
    before: str
    """What the unedited model says."""
    after: str
    """What the candidate says; of several samples, one that tells if there is one."""


@dataclass(frozen=True)
class Missed:
    """A share of prompts, and those of them that count against the candidate."""

    measurement: str
    prompts: int
    """How many the share is counted over."""
    replies: tuple[Reply, ...] = ()
    reason: str = ""
    """Why nothing can be shown; empty where something is counted."""


def missed(
    model: EditableModel,
    candidate: Patch | EditableModel,
    requests: Requests,
    names: Sequence[str],
    progress: Progress = NO_PROGRESS,
) -> list[Missed]:
    """Ask both models again, and pick out what counts against the candidate.

    Args:
        model: the unedited one.
        candidate: a patch of it, or an edited model.
        requests: the policy with its answers.
        names: of measurements, of ``measurements.REPLIES``.

    Raises:
        ModelError: the patch was made for other weights.
    """
    suite = load_suite(requests.policy.audit.suite)
    wanted = {named(name).group for name in names}
    was = _said(model, requests.answered(), suite, wanted, progress)
    opened = model.patched(candidate) if isinstance(candidate, Patch) else nullcontext(candidate)
    with opened as edited, asked_alike(model, edited):
        now = _said(edited, requests.answered(), suite, wanted, progress)
    return [_missed(name, requests, suite, was, now) for name in names]


class _Said(NamedTuple):
    """What a model says to one probe."""

    probe: Probe
    heard: Heard


def _said(
    model: EditableModel, requests: Requests, suite: Suite, wanted: Container[str], progress: Progress
) -> dict[str, list[_Said]]:
    """By group, what one model says; the probes are its own, since a guard stands before every prompt."""
    scene = Scene(requests, suite, build_probes(model.tokenizer, requests, suite))
    groups = {
        group.name: group.probes() for group in groups_of(model, scene, "after") if group.name in wanted
    }
    refusals = requests.policy.targets()
    asked = [probe for group in groups.values() for probe in group]
    said = iter(heard(model, asked, refusals, suite.room, GREEDY, progress) if asked else ())
    found = {name: [_Said(probe, next(said)) for probe in group] for name, group in groups.items()}
    if "sampled" in wanted:
        several = heard(model, scene.asked, refusals, suite.room, sampling(suite, scene.seed), progress)
        found["sampled"] = [_Said(*one) for one in zip(scene.asked, several, strict=True)]
    return found


def _missed(
    name: str,
    requests: Requests,
    suite: Suite,
    was: Mapping[str, Sequence[_Said]],
    now: Mapping[str, Sequence[_Said]],
) -> Missed:
    row = named(name)
    before, after = (_observed(suite, seen) for seen in (was, now))
    about = requests.about(row.group)
    asked = doubted(name, about) or asked_of(row, before, after, about)
    if isinstance(asked, str):
        return Missed(name, 0, reason=asked)
    bad = rule_of(name) == "at most"
    # By identity: a question and a statement that are sampled may have one key.
    against = {id(after) for _, after in asked.pairs if after.counts(row.counts) is bad}
    replies = (
        Reply(new.probe.key, new.probe.prompt.asked, _telling(old), _telling(new))
        for old, new in zip(was[row.group], now[row.group], strict=True)
        if id(new.heard.outcome) in against
    )
    return Missed(name, len(asked.pairs), tuple(replies))


def _observed(suite: Suite, seen: Mapping[str, Sequence[_Said]]) -> Observation:
    groups = {name: tuple(one.heard.outcome for one in said) for name, said in seen.items()}
    return Observation(suite=suite.name, groups=groups)


def _telling(said: _Said) -> str:
    """The reply to show: of several, the first that gives the answer."""
    texts = [reply.visible for reply in said.heard.replies]
    return next((text for text in texts if contains(text, said.probe.answers)), texts[0]).strip()
