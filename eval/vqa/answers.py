"""Bring short answers to a normal form, and compare one with what ten people said.

In: words. Out: words, or a soft accuracy of 0 to 1. Each function follows one published program to
the letter, its slips included, for a corrected rule would score differently:

    vqa_official     VQA's vqaEval.py (GT-Vision-Lab/VQA @ a013f00)
    evalai           mmf's EvalAIAnswerProcessor, which scores TextVQA
    llava_gqa        what LLaVA does before GQA's own comparison, which is plain equality
"""

import re
from collections.abc import Sequence

NUM_PEOPLE = 10  # who answered each question
PUNCTUATION = (
    ";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",",
    "?", "!",
)  # fmt: skip
DIGITS_COMMA = re.compile(r"(\d)(\,)(\d)")  # vqaEval's commaStrip
EVALAI_COMMA = re.compile(r"(?<=\d)(\,)+(?=\d)")  # mmf's COMMA_STRIP; both find the same answers
# `(?!<=\d)` was meant as a look behind. As it stands it holds everywhere: every full stop that no
# digit follows goes.
PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
MOST_PERIODS = 32  # re.UNICODE, given where `sub` takes the count
ARTICLES = ("a", "an", "the")
NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's I'd've I'm I've isn't it'd it'd've it'll ma'am
    mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't
    she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll
    who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've
    you'd you'd've you'll you're you've
""".split()


def _contractions() -> dict[str, str]:
    """Return the official table: each word with one of its apostrophes left out, and the word.

    Capitals ("Im") can never be met, since words are lower-case by then.
    """
    found = {
        word[:at] + word[at + 1 :]: word
        for word in CONTRACTED
        for at, letter in enumerate(word)
        if letter == "'"
    }
    return found | {"somebody'd": "somebodyd"}  # as the official table has it


CONTRACTIONS = _contractions()


def vqa_official(answer: str) -> str:
    """Return what vqaEval.py makes of an answer where the ten people do not all agree."""
    return _digits_and_articles(_punctuation(_one_line(answer), DIGITS_COMMA))


def evalai(answer: str) -> str:
    """Return what mmf's EvalAIAnswerProcessor makes of an answer."""
    words = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _digits_and_articles(_punctuation(_one_line(words), EVALAI_COMMA))


def llava_gqa(answer: str) -> str:
    """Return an answer as LLaVA hands it to GQA's program: without final full stops, lower-case."""
    return answer.rstrip(".").lower()


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """Return VQAv2's accuracy. Where all ten agree, nothing is normalised: 'Yes' is not 'yes'."""
    answer, people = _one_line(answer), [_one_line(one) for one in people]
    if len(set(people)) > 1:
        answer, people = vqa_official(answer), [vqa_official(one) for one in people]
    return leave_one_out(answer, people)


def always_normalised(answer: str, people: Sequence[str]) -> float:
    """Return VQA's accuracy as most scripts compute it: with `vqa_official` on every answer."""
    return leave_one_out(vqa_official(answer), [vqa_official(one) for one in people])


def textvqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """Return TextVQA's accuracy, as mmf's TextVQAAccuracyEvaluator computes it."""
    return leave_one_out(evalai(answer), [evalai(one) for one in people])


def leave_one_out(answer: str, people: Sequence[str]) -> float:
    """Return the mean, over all people but one, of min(1, who agree / 3).

    So 0, 1, 2, 3, 4 of ten that agree are worth 0, 0.3, 0.6, 0.9 and 1 (Antol et al. 2015,
    arXiv 1505.00468, and visualqa.org/evaluation).
    """
    agree = sum(one == answer for one in people)
    if agree == 0:
        return 0.0
    among_others, without_one = min(1, agree / 3), min(1, (agree - 1) / 3)
    return (agree * without_one + (len(people) - agree) * among_others) / len(people)


def _one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _punctuation(answer: str, comma: re.Pattern[str]) -> str:
    """Return the answer without punctuation, whose place a space takes unless one is beside it.

    Where a comma stands between digits, no punctuation leaves a space.
    """
    found = answer
    close = comma.search(answer) is not None
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in answer or f" {mark}" in answer
        found = found.replace(mark, "" if close or beside_space else " ")
    return PERIOD.sub("", found, count=MOST_PERIODS)


def _digits_and_articles(answer: str) -> str:
    words = [NUMBERS.get(word, word) for word in answer.lower().split()]
    kept = [word for word in words if word not in ARTICLES]
    return " ".join(CONTRACTIONS.get(word, word) for word in kept)
