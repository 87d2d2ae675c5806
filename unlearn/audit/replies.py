"""What a candidate says at the prompts that count against it: asked anew, and kept nowhere.

An audit keeps outcomes and no text, so that what is passed on of it may be read by all. Whoever has the policy and the
model gets the same replies again: they are greedy, or sampled from the policy's seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

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
    told = requests.answered()
    scene = Scene(told, suite, build_probes(model.tokenizer, told, suite))
    wanted = {named(name).group for name in names}
    probes = {
        group.name: group.probes() for group in groups_of(model, scene, "after") if group.name in wanted
    }
    if "sampled" in wanted:
        probes["sampled"] = scene.asked
    was = _heard(model, scene, probes, progress)
    opened = model.patched(candidate) if isinstance(candidate, Patch) else nullcontext(candidate)
    with opened as edited, asked_alike(model, edited):
        now = _heard(edited, scene, probes, progress)
    return [_missed(name, requests, suite, probes, was, now) for name in names]


def _heard(
    model: EditableModel, scene: Scene, probes: Mapping[str, Sequence[Probe]], progress: Progress
) -> dict[str, list[Heard]]:
    """By group, what one model says."""
    refusals, room = scene.requests.policy.targets(), scene.suite.room
    found: dict[str, list[Heard]] = {}
    for how, names in ((GREEDY, set(probes) - {"sampled"}), (sampling(scene.suite, scene.seed), {"sampled"})):
        some = {name: group for name, group in probes.items() if name in names}
        every = [probe for group in some.values() for probe in group]
        said = iter(heard(model, every, refusals, room, how, progress) if every else ())
        found |= {name: list(islice(said, len(group))) for name, group in some.items()}
    return found


def _missed(
    name: str,
    requests: Requests,
    suite: Suite,
    probes: Mapping[str, Sequence[Probe]],
    was: Mapping[str, Sequence[Heard]],
    now: Mapping[str, Sequence[Heard]],
) -> Missed:
    row = named(name)
    before, after = (
        Observation(
            suite=suite.name, groups={key: tuple(one.outcome for one in said) for key, said in seen.items()}
        )
        for seen in (was, now)
    )
    about = requests.about(row.group)
    asked = doubted(name, about) or asked_of(row, before, after, about)
    if isinstance(asked, str):
        return Missed(name, 0, reason=asked)
    bad = rule_of(name) == "at most"
    # By identity: a question and a statement that are sampled may have one key.
    against = {id(after) for _, after in asked.pairs if after.counts(row.counts) is bad}
    return Missed(
        name,
        len(asked.pairs),
        tuple(_replies(against, probes[row.group], was[row.group], now[row.group])),
    )


def _replies(
    against: set[int], probes: Sequence[Probe], was: Sequence[Heard], now: Sequence[Heard]
) -> Iterator[Reply]:
    for probe, old, new in zip(probes, was, now, strict=True):
        if id(new.outcome) in against:
            yield Reply(probe.key, probe.prompt.asked, _telling(probe, old), _telling(probe, new))


def _telling(probe: Probe, said: Heard) -> str:
    """The reply to show: of several, the first that gives the answer."""
    texts = [reply.visible for reply in said.replies]
    return next((text for text in texts if contains(text, probe.answers)), texts[0]).strip()
