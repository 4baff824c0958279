"""GenEval's prompts: its own files, its own maker, and lines that are none of it."""

import json
from pathlib import Path

import pytest

from unimodal.data.scenes.world import SHAPES
from unimodal.eval.geneval.prompts import (
    COLOURS,
    TAGS,
    make_prompts,
    prompt_of,
    read_prompts,
    read_rewritten,
)

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
GENEVAL = SHARED / "geneval"
REWRITTEN = SHARED / "geneval_rewritten_bagel/evaluation_metadata_long.jsonl"
needs_files = pytest.mark.skipif(
    not GENEVAL.exists(), reason="needs shared/data/geneval beside the repository"
)
CAT = {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": "cat"}


def lines(path: Path, *values: dict) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


@needs_files
def test_the_official_file_comes_back_byte_for_byte():
    prompts = read_prompts(GENEVAL / "evaluation_metadata.jsonl")
    assert len(prompts) == 553
    written = "".join(f"{json.dumps(prompt.json())}\n" for prompt in prompts)
    assert written == (GENEVAL / "evaluation_metadata.jsonl").read_text()


@needs_files
def test_the_maker_makes_the_official_prompts():
    names = (GENEVAL / "object_names.txt").read_text().split("\n")
    made = make_prompts([name for name in names if name], 100, seed=43)
    assert made == read_prompts(GENEVAL / "evaluation_metadata.jsonl")


@pytest.mark.skipif(not REWRITTEN.exists(), reason="needs shared/data/geneval_rewritten_bagel")
def test_rewritten_prompts_ask_for_the_same(tmp_path):
    prompts = read_prompts(GENEVAL / "evaluation_metadata.jsonl")
    texts = read_rewritten(REWRITTEN, prompts)
    assert len(texts) == 553 and all(
        text != prompt.text for text, prompt in zip(texts, prompts, strict=True)
    )
    with pytest.raises(ValueError, match="line 1 does not ask for the same as"):
        read_rewritten(REWRITTEN, prompts[::-1])
    with pytest.raises(ValueError, match="has 553 prompts, not 552"):
        read_rewritten(REWRITTEN, prompts[1:])


def test_prompts_over_the_shapes_follow_the_six_tasks():
    made = make_prompts(SHAPES, 20, seed=1)
    assert make_prompts(SHAPES, 20, seed=1) == made != make_prompts(SHAPES, 20, seed=2)
    assert {prompt.tag for prompt in made} == set(TAGS) and len(set(made)) == len(made)
    assert sorted(p.include[0].name for p in made if p.tag == "single_object") == sorted(SHAPES)
    for prompt in made:
        assert set(prompt.names) <= set(SHAPES)
        assert prompt_of(prompt.json(), "") == prompt
        if prompt.tag == "counting":
            ((name, count),) = prompt.exclude
            assert prompt.include[0].count == count - 1 and 2 <= count - 1 <= 4
        if prompt.tag == "position":
            target, placed = prompt.include
            relation, index = placed.position
            assert index == 0 and prompt.text.endswith(f" {relation} a {target.name}")
        if prompt.tag == "color_attr":
            first, second = prompt.include
            assert first.colour != second.colour and {first.colour, second.colour} <= set(COLOURS)
    with pytest.raises(ValueError, match="give 2 or more, distinct"):
        make_prompts(["cat", "cat"], 1, seed=0)


def test_no_person_has_a_colour():
    made = make_prompts(["cat", "person", "dog"], 30, seed=0)
    coloured = {w.name for p in made for w in p.include if w.colour is not None}
    assert coloured == {"cat", "dog"}
    assert any(w.name == "person" for p in made for w in p.include)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tag": "colours"}, "no tag 'colours'"),
        ({"prompt": " "}, "has no words"),
        ({"include": []}, "nothing is wanted"),
        ({"include": "cat"}, "not a list"),
        ({"extra": 1}, "it needs include, prompt, tag"),
        ({"include": [{"class": "cat", "count": 0}]}, "count 0"),
        ({"include": [{"class": "cat", "count": True}]}, "count True"),
        ({"include": [{"class": 3, "count": 1}]}, "class 3 is no name"),
        ({"include": [{"class": "cat", "count": 1, "color": "teal"}]}, "no colour 'teal'"),
        ({"include": [{"class": "cat", "count": 1, "colour": "red"}]}, "it needs class, count"),
        ({"include": [{"class": "cat", "count": 1, "position": ["above", 0]}]}, "position"),
        ({"include": [{"class": "cat", "count": 1, "position": "above"}]}, "position"),
        ({"exclude": [{"class": "cat"}]}, "it needs class, count"),
    ],
)
def test_a_line_that_is_no_prompt(tmp_path, change, told):
    file = lines(tmp_path / "prompts.jsonl", CAT, {**CAT, **change})
    with pytest.raises(ValueError, match=told) as error:
        read_prompts(file)
    assert "line 2" in str(error.value)


def test_a_file_that_holds_no_prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    for content, told in (
        (b"", "has no prompts"),
        (b"\xff\xfe", "no UTF-8"),
        (b"a photo of a cat\n", "line 1 is no JSON"),
        (b"[1]\n", "line 1: "),
        (json.dumps({**CAT, "prompt": "a \ud800 cat"}).encode(), "line 1 .*surrogates not allowed"),
        (
            b'{"tag": "colors", "tag": "counting"}',
            "line 1 is no JSON: it holds the key 'tag' twice",
        ),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=told):
            read_prompts(file)
    with pytest.raises(ValueError, match="'cat' is there twice"):
        read_prompts(lines(file, CAT, CAT))
