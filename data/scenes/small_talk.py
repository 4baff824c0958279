"""What people say that wants words and no picture, and the answers.

In: a generator. Out: (what is said, the answer). A topic has one answer, so that a small model
keeps its words; every fifth saying of a topic (index % 5 == 0) is held out of training.
"""

from collections.abc import Sequence

import numpy as np

from .wording import pick, pick_phrasing

WHAT_I_DO = "i draw, describe and edit pictures of coloured shapes."
TALK: dict[str, tuple[tuple[str, ...], str]] = {
    "hello": (
        (
            "good evening", "hello", "hi", "hey", "good morning", "greetings", "hello there",
            "hi there", "hey you", "hiya", "good afternoon", "howdy", "hello!", "hi!", "yo",
            "is anybody there?", "anyone home?", "are you there?", "hey hey", "nice to meet you",
        ),
        "hello! tell me what to draw.",
    ),
    "thanks": (
        (
            "much obliged", "thanks", "thank you", "thx", "thanks a lot", "cheers",
            "thank you very much", "many thanks", "ta", "thanks!", "great, thanks",
            "that's kind of you", "ok thanks", "thank you so much", "perfect, thank you",
        ),
        "you are welcome.",
    ),
    "praise": (
        (
            "marvellous", "nice", "great", "well done", "cool", "i love it", "that looks great",
            "wow", "beautiful", "good job", "you are amazing", "perfect", "that's lovely",
            "very pretty", "not bad", "this is exactly what i wanted",
        ),
        "i am glad that you like it.",
    ),
    "blame": (
        (
            "what a mess", "that's wrong", "this is bad", "that is not what i wanted", "wrong",
            "i don't like it", "you are stupid", "that is ugly", "bad", "terrible", "nope",
            "you made a mistake", "that's not right", "i hate it",
        ),
        "sorry. tell me what to change.",
    ),
    "who": (
        (
            "introduce yourself", "who are you?", "what are you?", "what is your name?",
            "are you a robot?", "are you human?", "do you have a name?", "who am i talking to?",
            "tell me about yourself", "what's your name?", "are you a person?", "are you chatgpt?",
            "which model are you?", "who made you?", "are you an ai?",
        ),
        "i am a small model that draws coloured shapes.",
    ),
    "skills": (
        (
            "what are you good at?", "what can you do?", "help", "what can you draw?", "help me",
            "how does this work?", "what should i ask?", "what do you do?", "how do i use this?",
            "give me an example", "what are my options?", "what is this program?", "manual",
            "what else can you do?", "what are your skills?", "show me the help", "/help", "?",
        ),
        WHAT_I_DO,
    ),
    "feelings": (
        (
            "how is it going?", "how are you?", "how do you feel?", "are you ok?", "what's up?",
            "are you happy?", "did you sleep well?", "are you tired?", "how are things?",
            "do you like me?", "are you bored?",
        ),
        "i am fine, thank you. what shall i draw?",
    ),
    "bye": (
        (
            "farewell", "bye", "goodbye", "exit", "quit", "see you", "good night", "bye bye",
            "see you later", "i have to go", "stop", "that's all for today", "i am done", "end",
            "ciao", "take care", "close", "logout", "leave",
        ),
        "goodbye!",
    ),
    "nothing": (
        (
            "please refrain from drawing", "don't draw anything", "do not draw", "no pictures",
            "no drawing", "stop drawing", "draw nothing", "only words please", "don't draw",
            "please do not draw anything", "just talk to me", "no picture", "no more pictures",
            "i don't want a picture", "wait", "answer in words", "please don't make an image",
            "let's just talk", "use words", "not now",
        ),
        "all right, i draw nothing.",
    ),
    "feel": (
        (
            "i feel low", "i am sad", "i am bored", "i am tired", "i am hungry", "i am happy today",
            "it is my birthday", "i had a bad day", "i am lonely", "i can't sleep", "i am sick",
            "my day was great", "i am in love", "i am angry",
        ),
        "i see. shall i draw something for you?",
    ),
    "yes": (
        ("very well", "ok", "yes", "sure", "fine", "okay", "alright", "right", "yep", "go on"),
        "good. tell me what to draw.",
    ),
    "gibberish": (
        (
            "qwertz", "asdf", "bla bla", "lorem ipsum", "hmm", "...", "xyz", "test", "foo", "123",
            "aaaa", "la la la", "abc", "um", "!!!", "hahaha", "lol", "testing", "blah",
        ),
        "i do not understand. tell me what to draw.",
    ),
}  # fmt: skip


def small_talk(
    rng: np.random.Generator, held_out: bool = False, topics: Sequence[str] = tuple(TALK)
) -> tuple[str, str]:
    """Draw what is said in small talk and its answer, uniform over the topics."""
    sayings, answer = TALK[pick(rng, topics)]
    return pick_phrasing(rng, sayings, held_out)[1], answer
