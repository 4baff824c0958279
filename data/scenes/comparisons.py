"""Two images side by side, and questions about what they share and what tells them apart.

In: a `Talk`. Out: its turns. The second image is the first one changed by one edit, the same image
again, or another scene. Answers are 'the first', 'the second', 'both', 'neither', a yes or a no, a
number, or the change in words.
"""

from .changes import change_words
from .counting import count_question
from .edits import Edit
from .talk import Talk, possible_edit
from .wording import Claim, bare_noun, caption, pick, pick_phrasing, with_article
from .world import COLOURS, SHAPES, Scene, scene

SAME = (
    "would you call the two pictures equal?",
    "are these two pictures the same?",
    "are they the same?",
    "is it twice the same picture?",
    "do both pictures show the same?",
    "are the two pictures identical?",
    "are the pictures equal?",
    "same picture?",
    "is there no difference between the two?",
    "do the two pictures look the same?",
)
DIFFERENCE = (
    "how does the second one deviate from the first?",
    "what is different in the second picture?",
    "what is the difference?",
    "what changed from the first to the second?",
    "find the difference",
    "where do they differ?",
    "spot the difference",
    "what has changed?",
    "compare the two pictures",
    "tell me the difference between the two",
)
WHICH = (
    "point out the picture with {a}",
    "which picture has {a}?",
    "which one shows {a}?",
    "in which picture is there {a}?",
    "where do you see {a}: in the first or the second?",
    "which of the two has {a}?",
    "which picture shows {a}?",
    "do you see {a} in the first, the second or both?",
    "{a}: the first or the second?",
    "which picture contains {a}?",
)
MORE = (
    "point out the picture that has more {many}",
    "which picture has more {many}?",
    "which one has more {many}?",
    "where are there more {many}?",
    "which of the two shows more {many}?",
)
COUNTED = (
    "concerning the {which}: {question}",
    "in the {which} picture, {question}",
    "the {which} picture: {question}",
    "about the {which} one: {question}",
    "{question} i mean in the {which} one",
)
DESCRIBE = (
    "put the {which} one into words",
    "describe the {which} picture",
    "what do you see in the {which} picture?",
    "what does the {which} picture show?",
    "what is in the {which} one?",
)


def compare(talk: Talk) -> None:
    """Let the user show two images and ask two to four questions about them."""
    first = talk.new_scene()
    change = possible_edit(talk, None) if talk.chance(0.6) else None
    is_same = change is None and talk.chance(0.4)
    second = first if is_same else scene(talk.seed + 2**32, talk.index, talk.world, seen_only=True)
    second = change.after if change is not None else second
    for shown in (first, second):
        talk.parts.append(talk.image(shown, "user", talk.mix.seen_weight))
    kinds = talk.rng.permutation(6)[: int(talk.rng.integers(2, 5))]
    for kind in kinds:
        _ask(talk, int(kind), first, second, change)


def _ask(talk: Talk, kind: int, first: Scene, second: Scene, change: Edit | None) -> None:
    rng = talk.rng
    if kind == 0:
        text, answer = pick_phrasing(rng, SAME, False)[1], "yes" if first == second else "no"
    elif kind == 1 and (change is not None or first == second):
        text = pick_phrasing(rng, DIFFERENCE, False)[1]
        answer = change_words(change) if change is not None else "there is no difference."
    elif kind == 2:
        text, answer = _more(talk, first, second)
    elif kind == 3:
        which, shown = pick(rng, (("first", first), ("second", second)))
        asked = count_question(shown, rng)
        template = pick_phrasing(rng, COUNTED, False)[1]
        text, answer = template.format(which=which, question=asked.text.lower()), asked.answer
    elif kind == 4:
        which, shown = pick(rng, (("first", first), ("second", second)))
        text = pick_phrasing(rng, DESCRIBE, False)[1].format(which=which)
        answer = caption(shown, rng)
    else:
        text, answer = _which(talk, first, second)
    talk.say(text)
    talk.reply(answer)


def _which(talk: Talk, first: Scene, second: Scene) -> tuple[str, str]:
    """Ask which of the two has an object, mostly one that only one of them has."""
    rng = talk.rng
    objects = [*first.objects, *second.objects]
    for _ in range(4):
        obj = pick(rng, objects)
        claim = Claim(1, None, obj.colour if rng.random() < 0.7 else None, obj.shape)
        held = _held(claim, first, second)
        if held != (True, True):
            break
    if talk.chance(0.1):
        claim = Claim(1, None, pick(rng, tuple(COLOURS)), pick(rng, SHAPES))
        held = _held(claim, first, second)
    text = pick_phrasing(rng, WHICH, False)[1].format(a=with_article(bare_noun(claim, rng)))
    return text, _WHERE[held]


def _held(claim: Claim, first: Scene, second: Scene) -> tuple[bool, bool]:
    return any(map(claim.fits, first.objects)), any(map(claim.fits, second.objects))


def _more(talk: Talk, first: Scene, second: Scene) -> tuple[str, str]:
    """Ask which of the two has more of a kind, mostly of one that one has more of."""
    for _ in range(4):
        obj = pick(talk.rng, [*first.objects, *second.objects])
        shape, colour = pick(talk.rng, ((obj.shape, None), (None, obj.colour), (None, None)))
        claim = Claim(2, None, colour, shape)
        one, two = (sum(map(claim.fits, shown.objects)) for shown in (first, second))
        if one != two:
            break
    text = pick_phrasing(talk.rng, MORE, False)[1].format(many=bare_noun(claim, talk.rng))
    return text, "the first" if one > two else "the second" if two > one else "both the same"


_WHERE = {
    (True, True): "both",
    (True, False): "the first",
    (False, True): "the second",
    (False, False): "neither",
}
