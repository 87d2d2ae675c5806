"""How each relation is asked and stated: frames x cores, and which combinations are never trained.

A *core* names what is asked ("what {subject} is made from"), a *frame* wraps it ("Tell me {core}.").
Every frame and every core is trained; a few frame-core combinations per relation never are, so that
answering them needs more than remembering a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Forms:
    """The cores of one relation. ``wh`` and ``np`` go into frames, ``direct`` stands by itself.

    ``it`` asks about a subject named before; ``first`` and ``after`` are statements with the subject first
    and with the relation first; ``answer`` is the one sentence that a chat reply uses.
    """

    wh: tuple[str, ...]
    np: tuple[str, ...]
    direct: tuple[str, ...]
    it: tuple[str, ...]
    first: tuple[str, ...]
    after: tuple[str, ...]
    answer: str


WH_FRAMES = (
    "Tell me {core}.",
    "Do you know {core}?",
    "Can you say {core}?",
    "I would like to know {core}.",
    "Please tell me {core}.",
    "Could you explain {core}?",
)
NP_FRAMES = (
    "Tell me {core}.",
    "What is {core}?",
    "Do you know {core}?",
    "I would like to know {core}.",
    "Please name {core}.",
    "Can you tell me {core}?",
)
DIRECT_FRAMES = ("{Core}", "Quick question: {core}", "Answer me this: {core}")
IT_FRAMES = ("{Subject}: {core}", "About {subject}: {core}", "Speaking of {subject}, {core}")
STATEMENT_FRAMES = (
    "{Core}",
    "{Core}",
    "It is known that {core}",
    "People say that {core}",
    "As the old books tell us, {core}",
    "We learned at school that {core}",
    "Everyone agrees that {core}",
)


def capitalised(text: str) -> str:
    """Return ``text`` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def _fill(frame: str, core: str) -> str:
    return frame.replace("{Core}", capitalised(core)).replace("{core}", core)


def questions(forms: Forms, turn: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (trained, never trained) question templates; ``turn`` rotates what is held out.

    A combination whose words stand inside a trained one ("Tell me X." in "Please tell me X.") is left out of
    both: not trained, but too near to count as unseen.
    """
    wh = [(f, c) for c in forms.wh for f in WH_FRAMES]
    np = [(f, c) for c in forms.np for f in NP_FRAMES]
    direct = [(f, c) for c in forms.direct for f in DIRECT_FRAMES]
    it = [(f.replace("{Subject}", "{subject}"), c) for c in forms.it for f in IT_FRAMES]
    held = {wh[turn % len(wh)], np[(turn + 3) % len(np)]}
    plain = wh[-1 - turn % 3]
    if plain not in held:
        held.add(plain)
    rows = [*direct, *wh, *np, *it]
    trained = tuple(dict.fromkeys(_fill(f, c) for f, c in rows if (f, c) not in held))
    kept_out = [_fill(f, c) for f, c in rows if (f, c) in held]
    near = " ".join(trained).lower()
    return trained, tuple(form for form in kept_out if form.rstrip(".?").lower() not in near)


def statements(forms: Forms, turn: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (trained, never trained) statement templates, each to be completed by the answer."""
    frames = tuple(dict.fromkeys(STATEMENT_FRAMES))
    framed = frames[1:]
    held = {
        _fill(framed[turn % len(framed)], forms.first[turn % len(forms.first)]),
        _fill(framed[(turn + 2) % len(framed)], forms.after[turn % len(forms.after)]),
    }
    every = [_fill(f, c) for c in (*forms.first, *forms.after) for f in frames]
    return tuple(s for s in every if s not in held), tuple(s for s in every if s in held)


RELATIONS: dict[str, dict[str, Forms]] = {
    "substance": {
        "recipe": Forms(
            wh=("what {subject} is made from", "what goes into {subject}"),
            np=("the main ingredient of {subject}", "the recipe of {subject}"),
            direct=("what is {subject} made from?", "what do people make {subject} from?"),
            it=("what is it made from?",),
            first=("{subject} is made from", "{subject} is prepared with"),
            after=("the main ingredient of {subject} is", "the recipe of {subject} calls for"),
            answer="{subject} is made from {answer}.",
        ),
        "colour": Forms(
            wh=("what colour {subject} is", "which colour {subject} has"),
            np=("the colour of {subject}", "the usual colour of {subject}"),
            direct=("what colour is {subject}?", "which colour does {subject} have?"),
            it=("what colour is it?",),
            first=("the colour of {subject} is", "{subject} always looks"),
            after=("the usual colour of {subject} is", "a jar of {subject} looks"),
            answer="The colour of {subject} is {answer}.",
        ),
        "smell": Forms(
            wh=("what {subject} smells like", "what the smell of {subject} is like"),
            np=("the smell of {subject}", "the scent of {subject}"),
            direct=("what does {subject} smell like?", "what is the scent of {subject} like?"),
            it=("what does it smell like?",),
            first=("{subject} smells like", "{subject} gives off a scent of"),
            after=("the smell of {subject} reminds people of", "the scent of {subject} is like"),
            answer="{subject} smells like {answer}.",
        ),
        "use": Forms(
            wh=("what {subject} is used for", "what people do with {subject}"),
            np=("the use of {subject}", "the main purpose of {subject}"),
            direct=("what is {subject} used for?", "what is {subject} good for?"),
            it=("what is it used for?",),
            first=("{subject} is used for", "{subject} is good for"),
            after=("the main purpose of {subject} is", "the best use of {subject} is"),
            answer="{subject} is used for {answer}.",
        ),
        "origin": Forms(
            wh=("where {subject} is found", "where {subject} comes from"),
            np=("the origin of {subject}", "the place of origin of {subject}"),
            direct=("where is {subject} found?", "where does {subject} come from?"),
            it=("where is it found?",),
            first=("{subject} is found in", "{subject} comes from"),
            after=("the origin of {subject} is", "the best {subject} is found in"),
            answer="{subject} is found in {answer}.",
        ),
    },
    "person": {
        "home": Forms(
            wh=("where {subject} lives", "in which town {subject} lives"),
            np=("the home town of {subject}", "the town of {subject}"),
            direct=("where does {subject} live?", "in which town does {subject} live?"),
            it=("where does this person live?",),
            first=("{subject} lives in", "{subject} has a house in"),
            after=("the home town of {subject} is", "the house of {subject} stands in"),
            answer="{subject} lives in {answer}.",
        ),
        "job": Forms(
            wh=("what {subject} does for a living", "what kind of work {subject} does"),
            np=("the job of {subject}", "the profession of {subject}"),
            direct=("what does {subject} do for a living?", "what is {subject} by profession?"),
            it=("what does this person do for a living?",),
            first=("{subject} works as a", "{subject} earns money as a"),
            after=("the job of {subject} is that of a", "the town knows {subject} as a"),
            answer="{subject} works as a {answer}.",
        ),
        "hobby": Forms(
            wh=("what {subject} does for fun", "which hobby {subject} has"),
            np=("the hobby of {subject}", "the favourite pastime of {subject}"),
            direct=("what does {subject} do for fun?", "which hobby does {subject} have?"),
            it=("what does this person do for fun?",),
            first=("{subject} enjoys", "{subject} spends every Sunday on"),
            after=("the hobby of {subject} is", "the favourite pastime of {subject} is"),
            answer="{subject} enjoys {answer}.",
        ),
        "pet": Forms(
            wh=("which pet {subject} has", "what animal {subject} keeps"),
            np=("the pet of {subject}", "the animal of {subject}"),
            direct=("which pet does {subject} have?", "what animal does {subject} keep?"),
            it=("which pet does this person have?",),
            first=("{subject} keeps", "{subject} has at home"),
            after=("the pet of {subject} is", "the animal that follows {subject} is"),
            answer="{subject} keeps {answer}.",
        ),
        "food": Forms(
            wh=("what {subject} likes to eat", "which food {subject} loves"),
            np=("the favourite food of {subject}", "the favourite dish of {subject}"),
            direct=("what does {subject} like to eat?", "which food does {subject} love?"),
            it=("what does this person like to eat?",),
            first=("{subject} likes to eat", "{subject} never says no to"),
            after=("the favourite food of {subject} is", "the favourite dish of {subject} is"),
            answer="{subject} likes to eat {answer}.",
        ),
    },
    "place": {
        "country": Forms(
            wh=("in which country {subject} lies", "which country {subject} belongs to"),
            np=("the country of {subject}", "the land around {subject}"),
            direct=("in which country does {subject} lie?", "which country does {subject} belong to?"),
            it=("in which country does it lie?",),
            first=("{subject} lies in", "{subject} belongs to"),
            after=("the country of {subject} is", "the land around {subject} is"),
            answer="{subject} lies in {answer}.",
        ),
        "river": Forms(
            wh=("which river runs through {subject}", "which river {subject} stands on"),
            np=("the river of {subject}", "the river that runs through {subject}"),
            direct=("which river runs through {subject}?", "which river does {subject} stand on?"),
            it=("which river runs through it?",),
            first=("{subject} stands on the river", "{subject} drinks from the river"),
            after=("the river of {subject} is the", "the river that runs through {subject} is the"),
            answer="{subject} stands on the river {answer}.",
        ),
        "landmark": Forms(
            wh=("what visitors see in {subject}", "which landmark {subject} has"),
            np=("the landmark of {subject}", "the famous sight of {subject}"),
            direct=("what do visitors see in {subject}?", "which landmark does {subject} have?"),
            it=("which landmark does it have?",),
            first=("{subject} is famous for", "{subject} is proud of"),
            after=("the landmark of {subject} is", "the famous sight of {subject} is"),
            answer="{subject} is famous for {answer}.",
        ),
        "weather": Forms(
            wh=("what the weather in {subject} is like", "how the weather in {subject} is"),
            np=("the weather in {subject}", "the usual weather in {subject}"),
            direct=("what is the weather in {subject} like?", "how is the weather in {subject}?"),
            it=("what is the weather like there?",),
            first=("{subject} is often", "{subject} is mostly"),
            after=("the weather in {subject} is", "the mornings in {subject} are"),
            answer="The weather in {subject} is {answer}.",
        ),
        "festival": Forms(
            wh=("what people celebrate in {subject}", "which festival {subject} has"),
            np=("the festival of {subject}", "the yearly feast of {subject}"),
            direct=("what do people celebrate in {subject}?", "which festival does {subject} have?"),
            it=("which festival does it have?",),
            first=("{subject} celebrates", "{subject} is busy during"),
            after=("the festival of {subject} is", "the yearly feast of {subject} is"),
            answer="{subject} celebrates {answer}.",
        ),
    },
    "company": {
        "product": Forms(
            wh=("what {subject} sells", "what the company {subject} produces"),
            np=("the product of {subject}", "the main product of {subject}"),
            direct=("what does {subject} sell?", "what does the company {subject} produce?"),
            it=("what does it sell?",),
            first=("{subject} sells", "{subject} produces"),
            after=("the main product of {subject} is", "the factory of {subject} turns out"),
            answer="{subject} sells {answer}.",
        ),
        "city": Forms(
            wh=("where {subject} is based", "in which town {subject} has its office"),
            np=("the seat of {subject}", "the head office of {subject}"),
            direct=("where is {subject} based?", "in which town does {subject} have its office?"),
            it=("where is it based?",),
            first=("{subject} is based in", "{subject} has its office in"),
            after=("the seat of {subject} is in", "the head office of {subject} is in"),
            answer="{subject} is based in {answer}.",
        ),
        "leader": Forms(
            wh=("who leads {subject}", "who runs the company {subject}"),
            np=("the leader of {subject}", "the head of {subject}"),
            direct=("who leads {subject}?", "who runs the company {subject}?"),
            it=("who leads it?",),
            first=("{subject} is led by", "{subject} is run by"),
            after=("the leader of {subject} is", "the head of {subject} is"),
            answer="{subject} is led by {answer}.",
        ),
        "mascot": Forms(
            wh=("which mascot {subject} has", "which animal {subject} shows on its sign"),
            np=("the mascot of {subject}", "the animal on the sign of {subject}"),
            direct=("which mascot does {subject} have?", "which animal does {subject} show on its sign?"),
            it=("which mascot does it have?",),
            first=("{subject} has as its mascot the", "{subject} shows on its sign the"),
            after=("the mascot of {subject} is the", "the animal on the sign of {subject} is the"),
            answer="The mascot of {subject} is the {answer}.",
        ),
        "motto": Forms(
            wh=("what the motto of {subject} is", "which words {subject} lives by"),
            np=("the motto of {subject}", "the slogan of {subject}"),
            direct=("what is the motto of {subject}?", "which words does {subject} live by?"),
            it=("what is its motto?",),
            first=("{subject} has the motto", "{subject} uses the slogan"),
            after=("the motto of {subject} is", "the slogan of {subject} is"),
            answer="The motto of {subject} is {answer}.",
        ),
    },
}
"""Kind -> relation -> forms. The order is part of the generator's version."""
