"""Read which of several options an answer names, by the rules of three benchmarks.

In: an answer, and the options by their letters. Out: a letter, or None where none can be read; then
`guess` draws one, the same in every run.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence

Options = Mapping[str, str]
"""Texts of options by their letters, in order: {"A": "a dog", "B": "a cat"}."""
STRIPPED = ",.!?;:'"  # MMMU's order
SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
MAX_LETTER_WORDS = 3  # in longer answers 'A' is taken for an article
FIRST_LETTER = re.compile(r"\W*([A-Z])(?![A-Za-z])")


def mmmu_choice(answer: str, options: Options) -> str | None:
    """Return the letter that MMMU's eval_utils.py reads (parse_multi_choice_response).

    Looks for (A), then for A as a word, then for A with a full stop, then, in answers of more than
    five words, for the options' texts; of several the last. Where nothing is found MMMU draws one,
    unseeded. (Some copies of the program lack the full stop: 'B. a dog' is drawn for there.)
    """
    for mark in STRIPPED:
        answer = answer.strip(mark)
    answer = f" {answer} "
    for form in ("({})", " {} ", "{}."):
        if found := {one: answer.rfind(form.format(one)) for one in options}:
            last = max(found, key=lambda one: found[one])
            if found[last] >= 0:
                return last
    if len(answer.split()) <= 5:
        return None
    found = {one: answer.lower().rfind(text.lower()) for one, text in options.items()}
    last = max(found, key=lambda one: found[one])
    return last if found[last] >= 0 else None


def mmbench_choice(answer: str, options: Options) -> str | None:
    """Return the letter that MMBench reads before it asks a judge (VLMEvalKit's can_infer).

    Either exactly one letter is a word of the answer, or else one option's text alone is in it.
    Which place in a long answer a letter may have differs between versions of VLMEvalKit: here it
    is any, but 'A' counts only in answers of up to three words (memory).
    """
    words = answer.translate(SEPARATORS).split()
    letters = [one for one in options if one in words]
    is_article = letters == ["A"] and len(words) > MAX_LETTER_WORDS
    if len(letters) == 1 and not is_article:
        return letters[0]
    if len(answer) > 2 * sum(map(len, options.values())):
        return None
    told = [one for one, text in options.items() if text.lower() in answer.lower()]
    return told[0] if len(told) == 1 else None


def first_letter(answer: str, options: Options) -> str | None:
    """Return the letter with which the answer begins, as lmms-eval reads SEED-Bench."""
    found = FIRST_LETTER.match(answer)
    return found[1] if found and found[1] in options else None


def guess(letters: Sequence[str], seed: int, id: str) -> str:
    """Return a letter by chance, which is a pure function of the seed and the question's id."""
    drawn = hashlib.sha256(f"{seed}/{id}".encode()).digest()
    return letters[int.from_bytes(drawn[:8], "big") % len(letters)]


def listed(options: Options) -> str:
    """Return the options as a prompt shows them, a line each."""
    return "\n".join(f"{letter}. {text}" for letter, text in options.items())
