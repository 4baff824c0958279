"""The tables of phrasings of talk about things.

As in scenes.phrasings every fifth template (index % 5 == 0) is held out of training: add at the end
of a table and move nothing.
"""

NAME = (
    "could you identify this object?", "what is this?", "what's this?", "what do you see?",
    "name this", "which object is shown here?", "what is in this picture?", "what does it show?",
    "what am i looking at?", "tell me what this is", "what would you call this?",
    "do you know what this is?", "can you name it?", "what is shown here?", "what thing is this?",
)  # fmt: skip
KIND = (
    "to which class does this belong?", "what kind of thing is this?", "what sort of thing is it?",
    "which category does this belong to?", "is this an animal, a vehicle, food or what?",
    "what type of object is it?", "what kind of thing is that?",
)  # fmt: skip
IS_KIND = (
    "would you say that this belongs with {kinds}?", "is this {kind}?", "is it {kind}?",
    "does this picture show {kind}?", "is that {kind}?",
)  # fmt: skip
IS_NAME = (
    "does one see {thing} here?", "is this {thing}?", "is it {thing}?", "is there {thing}?",
    "do you see {thing}?", "is there {thing} in the picture?", "can you see {thing}?",
)  # fmt: skip
COUNT = (
    "what is the number of {things}?", "how many {things} are there?", "how many {things}?",
    "count the {things}", "how many {things} do you see?", "how many {things} are in the picture?",
    "can you count the {things}?", "tell me how many {things} there are",
)  # fmt: skip
COLOUR = (
    "{the} has which colour?", "what colour is {the}?", "which colour is {the}?",
    "what is the colour of {the}?", "tell me the colour of {the}", "in which colour is {the}?",
    "what colour does {the} have?",
)  # fmt: skip
SIDE = (
    "name what stands {side} of {the}", "what is {side} of {the}?",
    "which thing is {side} of {the}?", "what do you see {side} of {the}?",
    "tell me what is {side} of {the}",
)  # fmt: skip
IS_SIDE = (
    "does {one} stand {side} of {other}?", "is {one} {side} of {other}?",
    "is {one} to be found {side} of {other}?", "is it right that {one} is {side} of {other}?",
)  # fmt: skip
DREW = (
    "what have you just made?", "what did you draw?", "what is it that you drew?",
    "what do you see in your picture?", "describe what you drew", "what is in your picture?",
    "tell me what you drew",
)  # fmt: skip
DESCRIBE = (
    "put this picture into words", "describe this picture", "what do you see?", "caption this",
    "what is in this picture?", "give me an account of this image", "describe the image",
    "what does the picture show?", "tell me what you see", "write a caption for this image",
    "can you say what is drawn here?", "describe it", "what things are in this picture?",
    "list what you see", "which things can you see?",
)  # fmt: skip
KEYWORD = (
    "anything that has to do with {keyword}", "something about {keyword}",
    "something to do with {keyword}", "a picture about {keyword}", "something for {keyword}",
    "a thing that goes with {keyword}",
)  # fmt: skip
ON_PAGE = (
    "{what} upon a page of {page}", "{what} on a {page} page", "{what} on a {page} background",
    "{what} on {page}", "{what} in front of a {page} background", "{what} on {page} paper",
)  # fmt: skip
IN_STYLE = {
    "cartoon": (
        "{what} the way cartoons have it", "{what} as a cartoon", "a cartoon of {what}",
        "{what} in cartoon style", "{what}, cartoon style",
    ),
    "flat": (
        "{what} without any shading", "{what} in flat style", "{what} as a flat icon",
        "a flat icon of {what}", "{what}, flat style",
    ),
}  # fmt: skip
EDITS = {
    "recolour": (
        "let {the} become {colour}", "make {the} {colour}", "paint {the} {colour}",
        "colour {the} {colour}", "turn {the} {colour}", "change {the} to {colour}",
        "can you make {the} {colour}?", "the same but with {the} in {colour}",
    ),
    "plain": (
        "{the} should look natural again", "give {the} its own colours",
        "make {the} look natural", "{the} in its natural colours", "undo the colour of {the}",
    ),
    "page": (
        "i would prefer the page in {page}", "make the background {page}",
        "put it on a {page} page", "change the background to {page}",
        "on a {page} background, please",
        "the background should be {page}", "use a {page} page",
    ),
    "resize": (
        "i would like {the} in {size}", "make {the} {size}", "draw {the} {size}",
        "{size}, please", "can you make {the} {size}?",
    ),
    "cartoon": (
        "let it look as cartoons do", "as a cartoon", "make it a cartoon", "in cartoon style",
        "draw it as a cartoon",
    ),
    "flat": (
        "let it look without shading", "in flat style", "make it flat", "as a flat icon",
        "draw it in flat style",
    ),
    "add": (
        "let {thing} join in", "add {thing}", "put {thing} beside it", "also draw {thing}",
        "and {thing}", "now with {thing} too", "can you add {thing}?",
    ),
    "remove": (
        "i do not need {the} any more", "remove {the}", "take {the} away", "delete {the}",
        "without {the}", "{the} should go",
    ),
    "replace": (
        "let {thing} stand where {the} is", "replace {the} by {thing}",
        "replace {the} with {thing}", "change {the} into {thing}",
        "turn {the} into {thing}", "{thing} in place of {the}",
    ),
    "undo": (
        "the earlier one was better", "undo that", "go back", "put the first one back",
        "undo it", "show the one before again", "no, back to the last one",
    ),
}  # fmt: skip
