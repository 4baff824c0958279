"""Questions in many more phrasings than an exam has, so that unseen ones are understood too.

In: sentences with alternatives, "(what|which) colour is the {one}?". Out: `VARIED`, tables of all
that can be said with them. Training alone draws from these (`Mix.varied`): held-out templates of
`phrasings.py` and `free_questions.py` are left out, and so is every fifth, as of all tables.
"""

import re
from itertools import product

from .free_questions import QUESTIONS as FREE_QUESTIONS
from .phrasings import QUESTIONS
from .wording import phrasings

_ALTERNATIVES = re.compile(r"\(([^()]*)\)")

_TELL = "(tell me|say|state|let me know|i wonder|can you tell me|do you know|please say)"
_WHETHER = (
    "(is it true that|is it right that|is it correct that|is it the case that|am i correct that|"
    "would you agree that|would you think that|do you think that|do you find that|"
    "can one say that|could one say that|could you confirm that|is it fair to say that|"
    "does it look as if|tell me whether|please say if|i wonder whether|say if)"
)
_TAG = "(correct|true|am i right|is that so|true or false|yes|no or yes)"
_SEE = "(can|could|do|did|would) (you|one|we) (see|spot|notice|make out|find|count)"
_HERE = "(| here| in it| in this picture| in the image| in there)"

_SENTENCES: dict[str, tuple[str, ...]] = {
    "count": (
        f"how many {{many}} (are there|do we have|does this show|have you counted|exist){_HERE}?",
        f"how many {{many}} {_SEE}?",
        f"what is the (count|total|total number|quantity) of {{many}}{_HERE}?",
        f"{_TELL} how many {{many}} (there are|you see|it has|can be seen)",
        "(count up|add up|tally|number) the {many}(| please| for me| that you see)",
    ),
    "existence": (
        f"{_SEE} {{a}}{_HERE}?",
        f"{_WHETHER} there is {{a}}{_HERE}",
        f"there is {{a}}{_HERE}, {_TAG}?",
        "(does|would) (this|it|the drawing) (hold|include|contain|feature) {a}?",
    ),
    "size": (
        "(how big|how large|of which size|what size) would you (say|call|judge) the {one}(| to "
        "be)?",
        f"{_TELL} (how big|how large|what size|of which size) the {{one}} is",
        "is the {one} (large, medium or small|medium, small or large|a small, medium or large "
        "one)?",
        "the {one}: (how big|how large|what size|small, medium or large)(| is it)?",
        "(give|name|tell) (|me )the size of the {one}",
    ),
    "relation": (
        "(where|how) does the {one} (stand|sit|lie) (with respect to|in relation to|as against) "
        "the {two}?",
        "(relative to|from|seen from|compared to|with respect to) the {two}, "
        "(where|in which direction|on what side|on which side) (is|sits|stands|lies) the {one}?",
        f"{_TELL} (where|in which direction|on which side|on what side) the {{one}} (is|lies|"
        f"stands), "
        "(seen from|relative to|compared to|with respect to) the {two}",
        "(left, right, above or below|above, below, left or right|is it left, right, above or "
        "below): "
        "the {one} (from|relative to|compared to|seen from) the {two}?",
        "which way (is|lies) the {one}, (going|looking|seen|counting) from the {two}?",
        "if (you|i|one) (start at|stand at|look from|go from) the {two}, where is the {one}?",
        "what is the (position|place|direction) of the {one} (relative to|compared to|from) the "
        "{two}?",
    ),
    "neighbour": (
        "(what|which shape|which thing|which object|what shape|which figure) "
        "(stands|sits|lies|appears|is located|is found|is there|do we have|comes) {relation} "
        "the {one}?",
        "(what|which shape|which thing|what shape) (would|could|can|do) (you|one|we) (find|see|"
        "meet) "
        "{relation} the {one}?",
        "(say|state|identify|give|tell me) (the shape|the object|the thing|the figure) "
        "(which is|that is|which stands|that sits|found|to be seen) {relation} the {one}",
        f"{_TELL} (what|which shape|which thing) (is|stands|lies|you see) {{relation}} the {{one}}",
        "(looking|going) {relation} the {one}, what (is there|do you find|comes)?",
        "{relation} the {one} (there is|stands|sits|lies) (what|which shape|which thing)?",
    ),
    "more": (
        f"{_WHETHER} (there are more {{many}} than {{others}}|the {{many}} outnumber the "
        f"{{others}}|"
        "there are fewer {others} than {many}|the {many} are more than the {others})",
        f"(there are more {{many}} than {{others}}|the {{others}} are fewer than the {{many}}), "
        f"{_TAG}?",
        f"{_SEE} (more {{many}} than {{others}}|fewer {{others}} than {{many}}){_HERE}?",
        "are the {many} (more common|in greater number|more in number) than the {others}?",
    ),
    "bigger": (
        f"{_WHETHER} (the {{one}} is bigger than the {{two}}|the {{one}} is larger than the "
        f"{{two}}|"
        "the {two} is smaller than the {one}|the {one} tops the {two} in size|"
        "the {one} is the bigger one, beside the {two})",
        "(the {one} is bigger than the {two}|the {one} is larger than the {two}|"
        f"the {{two}} is smaller than the {{one}}), {_TAG}?",
        "does the {one} (top|surpass|outdo|outsize) the {two}(| in size)?",
        "(in size|as to size|sizewise), is the {one} (above|ahead of|more than) the {two}?",
        "(is|would you call|do you find) the {one} (bigger|larger|greater), (next to|beside|"
        "against) the {two}?",
        "does the {one} (come|appear) in a (bigger|larger|greater) size than the {two}?",
    ),
    "yesno": (
        f"{_WHETHER} the {{one}} is {{what}}",
        f"the {{one}} is {{what}}, {_TAG}?",
        "(can|could|may|should) (you|one|i|we) (call|consider) the {one} {what}?",
        "(does|would|did) the {one} (look|appear|seem) {what}(| to you)?",
        "(do|would|did) you (see|find|consider|call) the {one} (as |to be |){what}?",
        "{what}: (does that fit|is that right for|is that true of|does it hold for) the {one}?",
    ),
    "place": (
        "(on|in) (which|what) (side|half|part) (would you put|do you see|lies|stands) the "
        "{one}: {halves}?",
        f"{_TELL} (where|in which half|on which side) the {{one}} is, {{halves}}",
        "(as to|about|regarding) the {one}: (is it |){halves}?",
        "(does|would) the {one} (sit|stand|belong) (more |)(to the|in the) {halves}?",
    ),
}  # fmt: skip


def spelled_out(sentence: str) -> list[str]:
    """Return what can be said with a sentence, one of each of its alternatives."""
    parts = _ALTERNATIVES.split(sentence)  # text and alternatives in turn
    choices = [part.split("|") if k % 2 else [part] for k, part in enumerate(parts)]
    return ["".join(words) for words in product(*choices)]


def _table(topic: str) -> tuple[str, ...]:
    unseen = {
        table[topic][k]
        for table in (QUESTIONS, FREE_QUESTIONS)
        for k in phrasings(table[topic], held_out=True)
    }
    said = [text for one in _SENTENCES[topic] for text in spelled_out(one)]
    return tuple(dict.fromkeys(text for text in said if text not in unseen))


VARIED: dict[str, tuple[str, ...]] = FREE_QUESTIONS | {topic: _table(topic) for topic in _SENTENCES}
