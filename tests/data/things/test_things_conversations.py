"""Talk about things: pure, well formed, true of its images, and never of what is held out."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from unimodal.command import main
from unimodal.data.command import SceneShards, mix_of
from unimodal.data.scenes import conversations as scenes
from unimodal.data.scenes.conversations import Mix
from unimodal.data.scenes.world import COLOURS, SHAPES, generator
from unimodal.data.shards import find_shards
from unimodal.data.things import conversations, edits, questions
from unimodal.data.things.choice import Choice, any_held_out
from unimodal.data.things.conversations import ThingsMix, conversation, is_of_things
from unimodal.data.things.icons import is_held_out, is_held_out_pair
from unimodal.data.things.looks import render_at_large
from unimodal.data.things.names import NAMES
from unimodal.data.things.requests import THING_TASKS, granted, grants, request
from unimodal.data.things.table import Things, things_of
from unimodal.data.things.wording import (
    ThingClaim,
    can_be_counted,
    noun,
    plural,
    told,
    with_article,
    word_of,
)
from unimodal.data.things.world import MARGIN, PAGES, Item, ThingScene, laid_out, render, shows
from unimodal.document import Document, Image, Text

KINDS = [name for name in ThingsMix().kinds()]


def only(kind: str) -> ThingsMix:
    return ThingsMix(**{f"things_{name}": float(name == kind) for name in KINDS})


def contents(document: Document) -> list:
    return [
        (p.role, p.weight, p.text if isinstance(p, Text) else p.pixels.tobytes())
        for p in document.parts
    ]


@pytest.fixture(scope="module")
def things(table: Path) -> Things:
    return things_of(table)


@pytest.fixture(scope="module")
def choice(things: Things) -> Choice:
    return Choice(things, rare=0.0)


def item(name: str, colour: str | None = None, **places: float) -> Item:
    return Item(name, name not in SHAPES, colour, **places)


def test_a_conversation_is_a_pure_function_of_seed_and_index(things):
    for index in range(20):
        first, again = (conversation(1, index, things) for _ in range(2))
        assert contents(first) == contents(again)
        assert contents(first) != contents(conversation(2, index, things))


@pytest.mark.parametrize("kind", KINDS)
def test_turns_alternate_and_only_the_assistant_is_learned_in_full(things, kind):
    mix = Mix(asked_weight=0.25, seen_weight=0.5)
    for index in range(40):
        document = conversation(2, index, things, mix=mix, things_mix=only(kind))
        roles = [role for role, _ in document.turns()]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        for part in document.parts:
            asked = 0.25 if isinstance(part, Text) else 0.5
            assert part.weight == (1.0 if part.role == "assistant" else asked)
            if isinstance(part, Image):
                assert part.pixels.shape == (64, 64, 3) and part.pixels.dtype == np.uint8
            else:
                assert not re.search(r"[{}]|  | of of |\ba [aeio]", part.text.lower()), part.text


def test_nothing_held_out_is_drawn_or_shown(things, monkeypatch):
    shown = []
    for module, name in ((conversations, "render"), (conversations, "render_at_large")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda s, *rest, real=real: (shown.append(s), real(s, *rest))[1]
        )
    for index in range(300):
        conversation(3, index, things)
    icons = Counter(i.name for s in shown for i in s.items if i.is_icon)
    assert len(icons) > 200 and not any(map(is_held_out, icons))
    assert not any(any_held_out([i.what for i in s.items]) for s in shown)
    assert {s.style for s in shown} == {"flat", "cartoon"}


def test_held_out_words_are_never_said(things):
    """Words of held-out icons that are no part of other words of the table."""
    words = {
        word
        for name in NAMES
        if is_held_out(name)
        for word in NAMES[name].words
        if not any(word in other for n in NAMES if not is_held_out(n) for other in NAMES[n].words)
    }
    assert len(words) > 15
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words)))})s?\b")
    said = [
        part.text.lower()
        for index in range(400)
        for part in conversation(4, index, things).parts
        if isinstance(part, Text)
    ]
    assert len(said) > 900 and not [text for text in said if pattern.search(text)]


def test_what_is_held_out_may_not_stand_together():
    held_out = next(name for name in NAMES if is_held_out(name))
    assert any_held_out([(held_out, True, None)])
    colour = next(c for c in COLOURS if is_held_out_pair("cat", c))
    assert any_held_out([("cat", True, colour)]) and not any_held_out([("cat", True, None)])
    other = next(name for name in NAMES if not is_held_out(name) and is_held_out_pair("cat", name))
    assert any_held_out([("cat", True, None), (other, True, None)])
    assert not any_held_out([("cat", True, None), ("cat", True, None)])


@pytest.mark.parametrize("task", THING_TASKS)
def test_a_request_is_granted(choice, things, task):
    rng = generator(5, list(THING_TASKS).index(task))
    for _ in range(40):
        wanted = request(task, rng, choice)
        drawn = granted(wanted, rng, things)
        assert grants(wanted, drawn) and len(drawn.items) == sum(c.count for c in wanted.claims)
        assert all(shows(one, drawn.style, drawn.page, things) for one in drawn.items)
        assert not any_held_out([one.what for one in drawn.items])
        if task == "counting":
            more = ThingScene(drawn.page, (*drawn.items, drawn.items[0]), drawn.style)
            assert not grants(wanted, more)
        if task == "position":
            turned = ThingScene(
                drawn.page,
                tuple(Item(*one.what, 1 - one.x, 1 - one.y, one.width) for one in drawn.items),
            )
            assert not grants(wanted, turned)


@pytest.mark.parametrize("widths", [(0.88,), (0.43, 0.36), (0.4, 0.4, 0.34), (0.4,) * 4])
def test_items_keep_their_distance(widths):
    rng = np.random.default_rng(0)
    for _ in range(200):
        places = laid_out(rng, widths)
        for (x, y), width in zip(places, widths, strict=True):
            assert min(x, y, 1 - x, 1 - y) >= width / 2 + MARGIN - 1e-9
        for k, (x, y) in enumerate(places):
            for (u, v), width in list(zip(places, widths, strict=True))[:k]:
                apart = max(abs(x - u), abs(y - v)) - (width + widths[k]) / 2
                assert apart >= 2 * MARGIN - 1e-9


@pytest.mark.parametrize("kind", edits.KINDS)
def test_an_edit_touches_what_it_names(choice, things, kind):
    rng = np.random.default_rng(1)
    made = 0
    for _ in range(60):
        wanted = request("mixed" if kind in ("remove", "add") else "tinted", rng, choice)
        before = granted(wanted, rng, things)
        found = edits.edit(before, kind, rng, choice)
        if found is None:
            continue
        made += 1
        text, after = found
        assert after != before and not any_held_out([one.what for one in after.items])
        if kind == "remove":
            assert len(before.items) - len(after.items) == 1
            assert set(after.items) < set(before.items)
        elif kind == "add":
            assert len(after.items) == len(before.items) + 1 and after.page == before.page
        elif kind in ("page", "style"):
            assert after.items == before.items
        else:
            changed = [a for a, b in zip(after.items, before.items, strict=True) if a != b]
            assert len(changed) == 1 and after.page == before.page
    assert made > 15


def test_answers_are_true(choice):
    cats = ThingScene(
        "white",
        (
            item("cat", "blue", x=0.2, y=0.5, width=0.3),
            item("circle", "red", x=0.8, y=0.5, width=0.3),
        ),
    )
    one = ThingScene("white", (item("cat"),))
    rng = np.random.default_rng(2)
    for _ in range(200):
        assert questions.ask(cats, "name", rng, choice)[1] == "a blue cat and a red circle"
        text, answer = questions.ask(cats, "count", rng, choice)
        number = (
            2
            if "thing" in text or "object" in text
            else int(
                "cat" in text or any(word in text for word in ("circle", "ball", "disc", "dot"))
            )
        )
        assert answer == ("zero", "one", "two")[number], text
        text, answer = questions.ask(cats, "is side", rng, choice)
        plain = text.lower()
        first_is_cat = plain.index("cat") < min(
            plain.index(word) for word in ("circle", "ball", "disc", "dot") if word in plain
        )
        is_left = "left" in plain
        assert answer == ("yes" if first_is_cat == is_left else "no"), text
        assert questions.ask(cats, "kind", rng, choice) is None
        assert questions.ask(one, "kind", rng, choice)[1] == "an animal"
        text, answer = questions.ask(one, "is there", rng, choice)
        assert answer == ("yes" if re.search(r"\bcat\b", text.lower()) else "no"), text
        text, answer = questions.ask(one, "is kind", rng, choice)
        assert answer == ("yes" if "animal" in text.lower() else "no"), text
    kinds = Counter(questions.ask(cats, "colour", rng, choice)[1] for _ in range(60))
    assert set(kinds) == {"blue", "red"}


def test_nouns():
    assert noun(ThingClaim(1, ("cat",), True, "blue")) == "a blue cat"
    assert noun(ThingClaim(2, ("mouse",), True)) == "two mice"
    assert noun(ThingClaim(1, ("jeans",), True, "red")) == "red jeans"
    assert noun(ThingClaim(3, ("circle",), False, "red")) == "three red circles"
    assert noun(ThingClaim(1, ("1st-place-medal",), True)) == "a 1st place medal"
    assert [with_article(w) for w in ("unicorn", "ufo", "hourglass", "apple", "cat")] == [
        "a unicorn", "a ufo", "an hourglass", "an apple", "a cat",
    ]  # fmt: skip
    assert [plural(w) for w in ("fox", "cherry", "toy", "torch", "leaf", "bus", "potato")] == [
        "foxes", "cherries", "toys", "torches", "leaves", "buses", "potatoes",
    ]  # fmt: skip
    row = ThingScene("white", (item("cat", x=0.9), item("dog", x=0.1), item("cat", x=0.5)))
    assert told(row) == "a dog and two cats"


def test_every_name_has_a_word_of_its_own():
    words = Counter(word for name in NAMES.values() for word in name.words)
    assert max(words.values()) == 1
    assert all(word_of(name, True, many=True) for name in NAMES if can_be_counted(name))
    assert sum(map(can_be_counted, NAMES)) > 330


def test_the_user_shows_any_look_and_the_assistant_one(things):
    shown = ThingScene("white", (item("cat", x=0.3), item("heart", "red", x=0.8, width=0.3)))
    assert np.array_equal(render(shown, things), render(shown, things))
    drawn = [render_at_large(shown, things, 64, np.random.default_rng(k)) for k in range(20)]
    assert len({one.tobytes() for one in drawn if one is not None}) >= 15
    assert not shows(item("heart", "white"), "flat", "white", things)
    assert all(shows(item("cat"), "flat", page, things) for page in PAGES)


# --- the command ----------------------------------------------------------------------------


def test_one_command_makes_both_kinds(table, things, tmp_path):
    words = ["data", "scenes", tmp_path / "out", f"--things={table}", "--samples=30", "--seed=5"]
    result = CliRunner().invoke(main, [*map(str, words), "--workers=1", "--mix=things=1.0"])
    assert result.exit_code == 0, result.output
    notes = json.loads((tmp_path / "out" / "scenes.json").read_text())
    assert notes["things"] == "test" and notes["mix.things"] == 1.0 and notes["mix.draw"] == 0.42
    assert len(find_shards(tmp_path / "out")) == 1
    mix = mix_of("conversations", ("things=1.0",), with_things=True)
    settings = SceneShards("conversations", 30, 5, 64, 5, mix, table)
    both = [is_of_things(5, k, Mix(), ThingsMix(things=1.0)) for k in range(30)]
    assert 6 < sum(both) < 24
    for index, of_things in enumerate(both):
        made = settings.document(index)
        wanted = conversation(5, index, things) if of_things else scenes.conversation(5, index)
        assert contents(made) == contents(wanted)


def test_without_a_table_all_stays_as_it_was():
    mix = mix_of("conversations", ())
    assert not any(name.startswith("things") for name in mix)
    settings = SceneShards("conversations", 10, 5, 64, 5, mix)
    assert set(settings.note()) == {
        "kind", "samples", "seed", "canvas", "shard_samples", *(f"mix.{name}" for name in mix),
    }  # fmt: skip
    for index in range(10):
        assert contents(settings.document(index)) == contents(scenes.conversation(5, index))


@pytest.mark.parametrize(
    "words, message",
    [
        (["--mix=things=1"], "talk about things needs --things"),
        (["--things=nowhere"], "holds no table of things"),
        (["--things=nowhere", "--mix=things_rare=2"], "a share is at most 1"),
        (["--things=nowhere", "--mix=things_draw=-1"], "a weight is a number of at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(words, message, tmp_path):
    words = ["data", "scenes", str(tmp_path / "out"), *words, "--samples=1"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "out").exists()
