"""The tables of chains: undo, the same again, corrections, changes told, and what was drawn.

As in `phrasings.py`, every fifth template (index % 5 == 0) is held out of training: add at the end
of a table and move nothing.
"""

UNDO = (
    "scrap the last change",
    "undo that",
    "undo",
    "go back",
    "no, go back",
    "take that back",
    "please undo the last step",
    "put it back",
    "the one before, please",
    "i liked it better before",
    "revert",
    "back to how it was",
    "undo it",
    "show me the picture before that",
    "can you undo that?",
    "return to the last version",
    "one step back",
    "no, as it was before",
    "undo the last change",
    "change it back",
    "forget that change",
    "cancel that",
    "it was better before",
    "make it like it was",
    "back",
)

FIRST = (
    "restore the original",
    "put the first one back",
    "back to the first picture",
    "show me the first one again",
    "go back to the first one",
    "start over with the original version",
    "the first picture again",
    "i want the first one back",
    "return to the first picture",
    "can i have the first one again?",
    "undo everything you did",
    "undo all of it",
    "give me back the first picture",
    "draw the first one again",
    "let's go back to the first",
)

AGAIN = (
    "repeat the picture",
    "draw it again",
    "once more",
    "again",
    "show it again",
    "could we have a repeat?",
    "the same picture again",
    "show me that again",
    "same again",
    "draw the same again",
)

SAME = {  # of one attribute of the object last spoken of
    "colour": (
        "keep all as it is, only {new}",
        "the same but {new}",
        "now the same but {new}",
        "the same in {new}",
        "same thing in {new}",
        "identical, with {new} as the colour",
        "same but {new}",
        "like that but {new}",
        "the same one, only {new}",
        "and now in {new}",
        "what would it look like in {new}?",
        "do the same in {new}",
        "again, but {new}",
        "once more, but in {new}",
        "now {new}",
    ),
    "size": (
        "keep all as it is, only {new}",
        "the same but {new}",
        "now the same but {new}",
        "same but {new}",
        "like that but {new}",
        "identical, with {new} as the size",
        "the same one, only {new}",
        "again, but {new}",
        "{new} please",
        "now {new}",
    ),
    "shape": (
        "keep all as it is, only let it be {new}",
        "the same but with {new} instead",
        "turn it into {new}",
        "the same with {new}",
        "make it {new} instead",
        "have it metamorphose into {new}",
        "change it to {new}",
        "{new} instead of it",
        "replace it with {new}",
        "swap it for {new}",
    ),
}

OTHER = (
    "wrong one",
    "no, the other one",
    "not that one, the other",
    "i meant the other one",
    "no, i meant the other {shape}",
    "you picked the wrong {shape}",
    "the other one!",
    "no, the other {shape}",
    "sorry, i meant the other one",
    "the other {shape}, please",
)

RATHER = (  # a correction of a colour or a size
    "i misspoke: {new}",
    "no, {new}",
    "no, i meant {new}",
    "sorry, {new}",
    "i said {new}",
    "{new} was what i asked for",
    "not {old}, {new}",
    "no, {new} please",
    "i meant {new}, not {old}",
    "actually, {new}",
)

ANOTHER = (  # a correction of which object was meant
    "i misspoke: {one}",
    "no, {one}",
    "no, i meant {one}",
    "not that one, {one}",
    "sorry, {one}",
    "{one} was what i asked for",
    "i meant {one}",
    "no, {one} please",
    "i said {one}",
    "wrong, {one}",
)

DREW = (  # about what it drew itself
    "put your drawing into words",
    "what did you draw?",
    "what do you see?",
    "describe your picture",
    "what is in your picture?",
    "give me an account of your drawing",
    "tell me what you drew",
    "describe it",
    "what have you drawn?",
    "what did you just draw?",
    "say what is in it",
    "what is it?",
    "what is in the picture?",
    "describe what you drew",
    "describe the picture",
    "what's that?",
    "what is that?",
    "what do you see in it?",
    "explain your picture",
    "in words, please",
)

CHANGED = (
    "where do the two differ?",
    "what changed?",
    "what has changed?",
    "what did you change?",
    "what is different now?",
    "could you name the difference?",
    "what is the difference?",
    "what did you do?",
    "tell me what changed",
    "what is new?",
)

EARLIER = (  # a question about an earlier picture
    "concerning the first picture: {question}",
    "in the first picture, {question}",
    "about the first picture: {question}",
    "{question} i mean in the first picture",
    "the first picture: {question}",
)
