"""Phrase what a user asks for: to draw what a caption says, or to say what an image shows.

In: a caption and the key of its sample. Out: several texts of the many phrasings, a pure function
of both. What was trained on must stay: change no phrasing, and add none.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from . import order

PHRASINGS = 4  # of each sample, of the tables below
MAX_WORDS = 12  # of a caption that goes into the middle of a sentence
ARTICLES = re.compile(r"\A(?:An?|The|Some|Several|Many|One|Two|Three|Four|Five|Six)(?= )")

# For captions of a few words: "a red bus".
SHORT = (
    "draw {}", "draw me {}", "please draw {}", "can you draw {}?", "could you draw {}, please?",
    "paint {}", "paint {} for me", "show me {}", "show me an image of {}", "make an image of {}",
    "make a picture of {}", "i want a picture of {}", "i would like to see {}", "create {}",
    "create an image of {}", "create a picture that shows {}", "generate an image of {}",
    "generate {}", "give me an image of {}", "give me a picture of {}", "an image of {}, please",
    "a picture of {}", "sketch {}", "illustrate {}", "can i have a picture of {}?",
    "let me see {}", "now draw {}", "i need an image of {}", "could you make a picture of {}?",
    "imagine {} and draw it", "{}",
)  # fmt: skip
# For captions of any length, in any form.
LONG = (
    "draw this: {}", "please draw this: {}", "draw what this says: {}", "an image for this: {}",
    "make an image that shows the following: {}", "paint the following: {}",
    "create an image from this description: {}", "can you draw this for me? {}",
    "generate an image of the following: {}", "here is a caption, draw its image: {}",
    "turn this description into a picture: {}", "illustrate this text: {}",
    "what would this look like? {}", "i would like an image of this: {}", "{}",
    "read this and draw it: {}", "{}\ndraw this", "{}\nplease make an image of it",
    "{}\ncan you show me that?",
)  # fmt: skip
QUESTIONS = (
    "describe this image", "describe the image", "describe this picture", "what is this?",
    "what does the image show?", "what does this picture show?", "what do you see?",
    "what can you see here?", "what is in this image?", "what is in the picture?",
    "caption this", "write a caption for this image", "give this picture a caption",
    "can you describe this?", "could you describe this image, please?", "please describe it",
    "tell me what you see", "tell me what this shows", "say what is in the image",
    "put this image into words", "how would you describe this picture?",
    "what is shown here?", "explain what this image shows", "what am i looking at?",
    "i cannot see this image, what is in it?", "which words describe this image?",
    "summarise this picture", "look at this image: what is there?", "what has been drawn here?",
)  # fmt: skip


def requests(caption: str, key: str) -> list[str]:
    """Return PHRASINGS different requests to draw what a caption says."""
    table, words = _table(caption)
    return [phrasing.replace("{}", words) for phrasing in _some(table, key)]


def plain_request(caption: str) -> str:
    """Return the plainest request to draw what a caption says: "draw a red bus"."""
    table, words = _table(caption)
    return table[0].replace("{}", words)


def questions(key: str) -> list[str]:
    """Return PHRASINGS different questions what an image shows."""
    return _some(QUESTIONS, key)


def draws_first(key: str) -> bool:
    """Tell whether the first of a sample's variants asks to draw: half of the keys do."""
    return order.word(key) % 2 == 0


TURNS = ("document", "llava", "chat", "edit", "question", "request")  # formats that may have some


def without_turns(sources: Iterable[Mapping[str, int]]) -> bool:
    """Tell by the notes of sources (see Measured) whether they have captions, and nothing that
    could teach the turns of a chat.
    """
    notes = list(sources)
    return any(one.get("format caption") for one in notes) and not any(
        one.get(f"format {format}") for one in notes for format in TURNS
    )


def _table(caption: str) -> tuple[tuple[str, ...], str]:
    """Return the phrasings that fit a caption, and its words as they stand in them."""
    is_short = "\n" not in caption and len(caption.split()) <= MAX_WORDS
    return (SHORT, _inside(caption)) if is_short else (LONG, caption)


def _inside(caption: str) -> str:
    """Return a caption as it stands within a sentence: no full stop, no capital of an article."""
    words = caption.strip()
    if words.endswith(".") and words.count(".") == 1:
        words = words[:-1]
    return ARTICLES.sub(lambda found: found[0].lower(), words)


def _some(table: tuple[str, ...], key: str) -> list[str]:
    places = order.permuted(np.arange(PHRASINGS), len(table), order.word(key))
    return [table[at] for at in places.tolist()]
