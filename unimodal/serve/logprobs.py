"""`logprobs` of an answer's words: how likely each token was, and the likeliest in its place.

In: what the generation tells (events.TokenScored). Out: the field as OpenAI has it. A token's text
is what it spells behind other words; where that is no whole character its bytes are null. Special
tokens, such as the end of a turn, are no content, but they are told where they are among the
likeliest, by their names.
"""

from collections.abc import Sequence
from typing import Any

from ..events import TokenScored
from ..model import Model

MOST, MOST_OF_ONE = 20, 1000  # tokens that are told in the place of each, and of a single one
UNFINISHED = "\ufffd"  # stands for bytes that are no whole character
ANCHOR = "a"


def logprobs_of(scored: Sequence[TokenScored], model: Model) -> dict[str, Any]:
    """Return the field of a choice whose words were scored."""
    special = model.vocabulary.special_tokens.values()
    content = [
        _told(one.token, one.logprob, model)
        | {"top_logprobs": [_told(*other, model) for other in one.likeliest]}
        for one in scored
        if one.token not in special
    ]
    return {"content": content, "refusal": None}


def _told(token: int, logprob: float, model: Model) -> dict[str, Any]:
    spelled = spelling(token, model)
    is_whole = UNFINISHED not in spelled
    content = list(spelled.encode()) if is_whole else None
    return {"token": spelled, "logprob": logprob, "bytes": content}


def spelling(token: int, model: Model) -> str:
    """Return what a token of words spells behind others, or the name of a special one.

    Some tokenizers drop the space before a text's first word, and only there.
    """
    names = {id: name for name, id in model.vocabulary.special_tokens.items()}
    if token in names:
        return f"<{names[token]}>"
    text = model.text_tokenizer
    before = text.encode(ANCHOR)
    return text.decode([*before, token]).removeprefix(text.decode(before))
