"""Prompts are pure functions of their numbers, by share, of training's words and pairs alone."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from other_architectures import with_boxes
from tiny_runs import write_conversations

from unimodal.data.scenes.world import Scene, has_held_out_pair
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Image, Text
from unimodal.model import Model
from unimodal.tokenizer.grid import Grid
from unimodal.train.rl import kinds, shard_prompts
from unimodal.train.rl.prompts import ScenePrompts, noise_seeds
from unimodal.train.rl.run import PromptsConfig
from unimodal.train.rl.shard_prompts import ShardPrompts, asked_of, seen


def test_the_mix_says_how_often_each_kind_comes(tiny_model: Model) -> None:
    mix = {"drawing": 3.0, "drawing/position": 1.0, "questions/count": 2.0, "edits": 1.0,
           "captions": 1.0}  # fmt: skip
    prompts = ScenePrompts(PromptsConfig(mix), tiny_model, 64, 2)
    found = [prompts(number) for number in range(400)]
    counts = Counter(one.kind for one in found)
    shares = kinds.shares(mix)
    assert shares["drawing/position"] == pytest.approx(1.5 / 8)
    assert sum(shares.values()) == pytest.approx(1.0)
    for kind, share in shares.items():
        spread = (400 * share * (1 - share)) ** 0.5
        assert abs(counts[kind] - 400 * share) < 4 * spread, kind
    assert set(prompts.kinds) == set(shares)
    for one in found:
        shows = isinstance(one.document.parts[0], Image)
        assert shows == (not one.kind.startswith("drawing"))
        if isinstance(one.wish, Scene):
            assert not has_held_out_pair(one.wish.objects)


def test_boxes_are_around_what_is_wished_for(tiny_model: Model) -> None:
    prompts = ScenePrompts(PromptsConfig({"layout": 1.0}), with_boxes(tiny_model), 64, 2)
    for number in range(20):
        made = prompts(number)
        words, *things = made.document.parts
        assert isinstance(words, Text) and words.box is None
        assert isinstance(made.wish, tuple) and [one.part() for one in made.wish] == things


def test_a_prompt_is_a_function_of_its_number(tiny_model: Model) -> None:
    config = PromptsConfig({"drawing": 1.0, "edits": 1.0})
    first, second = (ScenePrompts(config, tiny_model, 64, 2) for _ in range(2))
    other = ScenePrompts(replace(config, seed=12), tiny_model, 64, 2)
    texts = [[made(n).document.parts[-1] for n in (5, 3, 9)] for made in (first, second, other)]
    assert texts[0] == texts[1] != texts[2]
    assert noise_seeds(0, 7, 3) == noise_seeds(0, 7, 3) != noise_seeds(0, 8, 3)
    assert len({*noise_seeds(0, 7, 8), *noise_seeds(1, 7, 8)}) == 16


def test_prompts_of_shards_end_before_the_last_reply(tiny_model: Model, tmp_path: Path) -> None:
    model = replace(tiny_model, grid=Grid(8, 8), context=2048)
    write_conversations(tmp_path / "talks", 30, 30)
    sources = {"talks": SourceConfig(str(tmp_path / "talks"))}
    prompts = ShardPrompts(sources, model, 0, 80)
    found = [prompts(number) for number in range(20)]
    assert {one.kind for one in found} == {"talks"} == set(prompts.kinds)
    assert all(one.document.parts[-1].role == "user" for one in found)
    again = ShardPrompts(sources, model, 0, 80)
    words = [[str(part) for part in one.document.parts if isinstance(part, Text)] for one in found]
    assert words[7] == [str(part) for part in again(7).document.parts if isinstance(part, Text)]
    assert len({tuple(one) for one in words}) > 10


def test_documents_that_ask_nothing_do_not_repeat_others(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where three of four are captions, the prompts of a rollout are no copies of a few."""
    model = replace(tiny_model, grid=Grid(8, 8), context=2048)
    write_conversations(tmp_path / "talks", 40, 40)
    prompts = ShardPrompts({"talks": SourceConfig(str(tmp_path / "talks"))}, model, 0, 80)
    places: list[int] = []
    place = shard_prompts._place

    def recorded(*args: Any) -> Any:
        found = place(*args)
        places.append(found.record)
        return found

    monkeypatch.setattr(shard_prompts, "_place", recorded)
    monkeypatch.setattr(
        shard_prompts, "asked_of", lambda document: None if places[-1] % 4 else asked_of(document)
    )
    used = []
    for number in range(40):
        prompts(number)
        used.append(places[-1])
    assert len(set(used)) == 10, "all that can be asked are asked"
    following = sum(one == other for one, other in zip(used, used[1:], strict=False))
    assert following < 12, "and not the same one again and again"


def test_images_are_judged_by_their_own_pixels_or_those_of_their_codes(tiny_model: Model) -> None:
    model = replace(tiny_model, grid=Grid(8, 8))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    given = Document((Image(pixels=pixels, role="user"),))
    encoded = model.codec.encode_document(given)
    (own,) = seen(encoded, model.codec).parts
    assert isinstance(own, Image) and np.array_equal(own.pixels, pixels)
    bare = Document(tuple(replace(part, pixels=None) for part in encoded.parts))
    (decoded,) = seen(bare, model.codec).parts
    (expected,) = model.codec.decode_document(bare).parts
    assert np.array_equal(decoded.pixels, expected.pixels)


def test_what_asks_nothing_is_no_prompt() -> None:
    user, reply = Text("hello", role="user"), Text("hi", role="assistant")
    assert asked_of(Document((user, reply))) == Document((user,))
    assert asked_of(Document((user, reply, user))) == Document((user, reply, user))
    assert asked_of(Document((Text("a caption"),))) is None
    assert asked_of(Document((reply,))) is None
