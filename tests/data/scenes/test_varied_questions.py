"""Questions in many phrasings: each can be asked, and none is held out elsewhere."""

from string import Formatter

from unimodal.data.scenes.conversations import Mix, conversation
from unimodal.data.scenes.free_questions import QUESTIONS as FREE_QUESTIONS
from unimodal.data.scenes.phrasings import QUESTIONS
from unimodal.data.scenes.varied_questions import VARIED, spelled_out
from unimodal.data.scenes.wording import phrasings
from unimodal.document import Text


def slots(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def test_alternatives_are_spelled_out_in_order() -> None:
    assert spelled_out("(a|b) dog(|, red)") == ["a dog", "a dog, red", "b dog", "b dog, red"]
    assert spelled_out("plain") == ["plain"]


def test_every_phrasing_has_the_slots_of_its_topic_and_is_said_once() -> None:
    assert VARIED.keys() == QUESTIONS.keys()
    for topic, table in VARIED.items():
        assert len(set(table)) == len(table)
        wanted = slots(QUESTIONS[topic][1])
        for one in table:
            assert slots(one) == wanted or topic == "pattern", (topic, one)
            assert not set("()|") & set(one) and "  " not in one, one


def test_none_that_is_trained_on_is_held_out_elsewhere() -> None:
    for table in (QUESTIONS, FREE_QUESTIONS):
        for topic, templates in table.items():
            unseen = {templates[k] for k in phrasings(templates, held_out=True)}
            trained = {VARIED[topic][k] for k in phrasings(VARIED[topic], held_out=False)}
            assert not unseen & trained, topic


def test_a_mix_without_them_says_what_it_said() -> None:
    none, all_ = Mix(ask=1.0, draw=0.0), Mix(ask=1.0, draw=0.0, varied=1.0)
    asked = [{one.text for one in said(mix)} for mix in (none, all_)]
    assert len(asked[0] & asked[1]) < len(asked[1]) / 3


def said(mix: Mix) -> list[Text]:
    parts = [part for index in range(30) for part in conversation(4, index, mix=mix).parts]
    return [part for part in parts if isinstance(part, Text) and part.role == "user"]
