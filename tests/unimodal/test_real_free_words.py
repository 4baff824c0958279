"""The 200 requests in free words: all can be granted, and how many were is told by kind."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_input.try_it import HERE, judge_prompt, prompts, replies, request_of, write_summary

from unimodal.chat import Chat
from unimodal.data.scenes.requests import TASKS, granted
from unimodal.data.scenes.world import COLOURS, SHAPES, SIZES, Scene, generator, render
from unimodal.eval.answer import Answer
from unimodal.model import Model

FILE = HERE / "free_words.json"
ENTRIES = prompts(FILE)
FIELDS = {"kind", "prompt", "means", "claims", "relation"}


def normal(text: str) -> str:
    """The words of a text in small letters: texts that differ in stops alone are one."""
    return " ".join(re.findall(r"\w+", text.lower()))


def drawn(entry: dict) -> Scene:
    return granted(request_of(entry), generator(7, ENTRIES.index(entry)))


def test_no_two_are_alike_and_none_is_kept_elsewhere():
    texts = [normal(entry["prompt"]) for entry in (*ENTRIES, *prompts())]
    assert len(ENTRIES) == 200 and len(set(texts)) == len(texts)


def test_kinds_are_balanced():
    counts = Counter(entry["kind"] for entry in ENTRIES)
    assert set(counts) == {*TASKS, "sizes"} and set(counts.values()) == {28, 29}


def test_what_is_asked_for_is_balanced():
    claims = [claim for entry in ENTRIES for claim in entry["claims"]]
    colours = Counter(c["colour"] for c in claims if "colour" in c)
    shapes = Counter(c["shape"] for c in claims)
    assert set(colours) == set(COLOURS) and min(colours.values()) > 0.6 * max(colours.values())
    assert set(shapes) == set(SHAPES) and min(shapes.values()) > 0.6 * max(shapes.values())
    assert {c["size"] for c in claims if "size" in c} == set(SIZES)
    counted = Counter(e["claims"][0]["count"] for e in ENTRIES if e["kind"] == "counting")
    assert set(counted) == {2, 3, 4} and min(counted.values()) >= 9
    relations = Counter(entry["relation"] for entry in ENTRIES if "relation" in entry)
    assert set(relations.values()) == {7} and len(relations) == 4


@pytest.mark.parametrize("kind", [*TASKS, "sizes"])
def test_claims_are_those_of_the_kind(kind: str):
    """A single object has a shape alone, a colour is stated where it is judged, and so on."""
    for entry in (entry for entry in ENTRIES if entry["kind"] == kind):
        claims = entry["claims"]
        assert set(entry) <= FIELDS and entry["means"]
        assert 1 <= sum(c["count"] for c in claims) <= 4
        assert ("relation" in entry) == (kind == "position")
        assert any("size" in c for c in claims) == (kind == "sizes")
        has_colours = all("colour" in c for c in claims)
        assert has_colours == (kind not in ("single object", "two objects")), entry["prompt"]
        assert all(c["count"] == 1 for c in claims) == (kind != "counting")
        if kind in ("two objects", "position"):
            assert len(claims) == 2
        elif kind == "attribute binding":
            assert len({c["colour"] for c in claims}) == len(claims) >= 2
        elif kind != "sizes":
            assert len(claims) == 1


def test_meanings_say_what_is_claimed():
    numbers = {1: "", 2: "two", 3: "three", 4: "four"}
    for entry in ENTRIES:
        for claim in entry["claims"]:
            words = [claim.get("size"), claim.get("colour"), claim["shape"]]
            said = " ".join(word for word in (numbers[claim["count"]], *words) if word)
            assert said in entry["means"], entry["prompt"]
        assert entry.get("relation", "") in entry["means"]


def test_every_request_can_be_granted_and_is_not_by_an_empty_scene():
    for entry in ENTRIES:
        scene = drawn(entry)
        right, reason = judge_prompt(entry, Answer("", (render(scene),)))
        assert right, f"{entry['prompt']}: {reason}"
        empty = render(replace(scene, objects=()))
        assert judge_prompt(entry, Answer("", (empty,)))[0] is False


def test_a_relation_turned_about_is_wrong():
    for entry in (entry for entry in ENTRIES if "relation" in entry):
        scene = drawn(entry)
        turned = tuple(replace(obj, x=1 - obj.x, y=1 - obj.y) for obj in scene.objects)
        right, reason = judge_prompt(entry, Answer("", (render(replace(scene, objects=turned)),)))
        assert right is False and entry["relation"] in reason


def test_what_the_world_lacks_is_refused(tmp_path: Path):
    claims = [{"count": 1, "colour": "teal", "shape": "circle"}]
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps([{"prompt": "a ball", "means": "", "claims": claims}]))
    with pytest.raises(ValueError, match="prompt 1 claims 'teal'"):
        prompts(file)
    entry = {"prompt": "a ball", "means": "", "claims": [], "relation": "beside"}
    file.write_text(json.dumps([entry]))
    with pytest.raises(ValueError, match="'beside'"):
        prompts(file)


def test_prompts_that_are_answered_together_are_answered_as_alone(drawing_model: Model):
    texts = [entry["prompt"] for entry in ENTRIES[:3]]
    for text, reply in zip(texts, replies(drawing_model, 5, texts), strict=True):
        alone = Chat(drawing_model, seed=5)(text)
        assert reply.text == alone.text and len(reply.images) == len(alone.images) == 1
        np.testing.assert_array_equal(reply.images[0], np.asarray(alone.images[0]))


def test_a_summary_counts_every_kind_and_keeps_one_sheet(drawing_model: Model, tmp_path: Path):
    kept = [next(e for e in ENTRIES if e["kind"] == kind) for kind in ("sizes", "colours")]
    hopeless = {"prompt": "my cat", "means": "a cat", "claims": []}
    file = tmp_path / "some.json"
    file.write_text(json.dumps([*kept, hopeless]))
    table = write_summary(tmp_path / "out", drawing_model, 1, file)
    rows = [line for line in table.splitlines() if " | 0 | " in line]
    assert [row.split(" | ")[0] for row in rows] == ["| sizes", "| colours", "| all"]
    assert rows[-1] == "| all | 0 | 2 | 0.00 (0.00 to 0.66) |"
    text = (tmp_path / "out" / "README.md").read_text()
    assert table in text and drawing_model.hash in text and "some.json" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "sheet.png"}
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.height > drawing_model.canvas[1]
