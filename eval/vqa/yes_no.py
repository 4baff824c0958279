"""Tell whether an answer says yes or no, by the rules of two benchmarks.

In: an answer. Out: 'yes' or 'no', or None where the benchmark's rule finds neither.
"""

import re

YES, NO = "yes", "no"
NO_WORDS = ("No", "not", "no")  # POPE's, with capitals as they stand
SAYS_EITHER = re.compile(r"\b(yes|no|not)\b", re.IGNORECASE)


def pope_answer(answer: str) -> str:
    """Return what POPE's evaluate.py reads (AoiDragon/POPE @ 08d957b): 'no' where the first
    sentence has one of NO_WORDS, else 'yes', whatever it says.
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return NO if any(word in words for word in NO_WORDS) else YES


def says_either(answer: str) -> bool:
    """Return whether yes, no or not is a word of the answer: POPE takes anything else for yes."""
    return SAYS_EITHER.search(answer) is not None


def mme_answer(answer: str) -> str | None:
    """Return what MME's calculation.py reads: yes or no within the first four letters, else None,
    which is wrong.
    """
    head = answer.lower()[:4]
    return next((word for word in (YES, NO) if word in head), None)


def true_or_false(answer: str) -> bool | None:
    """Return what an answer says about a sentence: true or yes, false or no, as its first word."""
    word = re.match(r"\W*(true|false|yes|no)\b", answer, re.IGNORECASE)
    return None if word is None else word[1].lower() in ("true", YES)
