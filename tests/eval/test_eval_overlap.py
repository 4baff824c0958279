"""What an evaluation asks, looked for in training shards: exactly, nearly, and not at all."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import vqa_files
from click.testing import CliRunner
from PIL import Image

from unimodal.command import main
from unimodal.data.scenes.world import render, scene
from unimodal.data.shards import ShardWriter
from unimodal.document import Document, Text
from unimodal.document import Image as Shown
from unimodal.eval.editing.scenes import SceneEdits, write_scene_edits
from unimodal.eval.overlap import Probe, overlap, told, words_of

TEXTS = (
    "a dog",
    "A photo of a red circle to the left of a blue square.",
    "Is there a cat in the image?",
)


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three documents, each with an image of its own, in a folder of shards."""
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder) as writer:
        for number, text in enumerate(TEXTS):
            picture = Shown(pixels=render(scene(9, number), 64), role="user")
            writer.write(f"{number:04d}", Document((picture, Text(text, role="user"))))
    return str(folder)


def of_texts(shards: str, *texts: str) -> dict:
    probes = [Probe(str(number), text) for number, text in enumerate(texts)]
    return overlap(probes, (), [shards])["prompts"]


def test_prompts_are_found_whatever_their_case_and_punctuation(shards: str):
    found = of_texts(shards, "A DOG!", "is there a cat in the image", "a dog runs", "a")
    assert (found["of"], found["exact"], found["near"]) == (4, 2, 0)
    places = {one["what"]: one["training"] for one in found["examples"]}
    assert places == {
        "a dog": "shard-000000.tar, 0000",
        "is there a cat in the image": "shard-000000.tar, 0002",
    }


def test_prompts_that_are_nearly_there_share_four_of_five_trigrams(shards: str):
    """Of "... left of a blue square", 11 words and 9 trigrams here: a word more, and one other."""
    more = "now a photo of a red circle to the left of a blue square"
    one_end = "a photo of a red circle to the left of a blue heart"
    middle = "a photo of a red star to the left of a blue square"
    found = of_texts(shards, more, one_end, middle)
    assert (found["exact"], found["near"]) == (0, 2)
    assert [one["what"] for one in found["examples"]] == [one_end, more]
    short = of_texts(shards, "there a cat")
    assert (short["exact"], short["near"]) == (0, 0), "too few trigrams"


def test_a_line_of_a_longer_text_is_there_exactly(tmp_path: Path):
    with ShardWriter(tmp_path) as writer:
        writer.write_files("a", {"txt": b"first\nDraw a house.\nlast"})
        rows = {"conversations": [{"from": "human", "value": "What colour is the very old bus?"}]}
        writer.write_files("b", {"json": json.dumps(rows).encode()})
    found = of_texts(str(tmp_path), "draw a house", "what colour is the very old bus")
    assert found["exact"] == 2


def test_images_are_found_through_formats_sizes_and_noise(shards: str):
    pixels, rng = render(scene(9, 1), 64), np.random.default_rng(0)
    noisy = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
    twice = np.asarray(Image.fromarray(pixels).resize((128, 128), Image.Resampling.BICUBIC))
    images = {
        "same": encoded(pixels, "PNG"), "pixels": pixels, "lossless": encoded(pixels, "BMP"),
        "jpeg": encoded(pixels, "JPEG", quality=60), "noisy": noisy, "twice": twice,
        "another": render(scene(9, 77), 64), "mirrored": pixels[:, ::-1].copy(),
        "negative": 255 - pixels,
    }  # fmt: skip
    found = overlap([], images.items(), [shards])["images"]
    hows = {one["what"]: one["how"] for one in found["examples"]}
    assert hows == dict.fromkeys(("same", "pixels", "lossless"), "exact") | dict.fromkeys(
        ("jpeg", "noisy", "twice"), "near"
    )
    assert (found["of"], found["exact"], found["near"]) == (9, 3, 3)


def test_scenes_that_differ_in_one_thing_are_other_images(shards: str):
    """An edit of a training image is no copy of it."""
    whole = scene(9, 1)
    fewer = type(whole)(whole.background, whole.objects[1:])
    assert overlap([], [("fewer", render(fewer, 64))], [shards])["images"]["near"] == 0


def test_an_item_needs_prompt_and_image_in_one_sample(shards: str):
    images = {str(number): render(scene(9, number), 64) for number in range(3)}
    probes = [
        Probe("both", "a dog", ("0",)),
        Probe("other image", "a dog", ("1",)),
        Probe("other words", "a cow", ("0",)),
        Probe("no image", "a dog"),
    ]
    found = overlap(probes, images.items(), [shards])
    assert [one["what"] for one in found["items"]["examples"]] == ["both", "no image"]
    assert found["items"]["exact"] == 2 and found["images"]["exact"] == 3
    assert told(found) == {
        "prompts_in_training": "1 exact, 0 near of 2",
        "images_in_training": "3 exact, 0 near of 3",
        "items_in_training": "2 exact, 0 near of 4",
        "training_samples": "3",
    }
    assert told(None) == {"training_overlap": "not checked"}


def test_what_cannot_be_compared_is_counted(tmp_path: Path):
    with ShardWriter(tmp_path) as writer:
        writer.write_files("a", {"txt": b"\xff"})
        writer.write_files("b", {"png": b"\x89PNG\r\n\x1a\nbroken"})
        writer.write_files("c", {"txt": b"a dog"})
    found = overlap([Probe("1", "a dog")], [("x", np.zeros((8, 8, 3), np.uint8))], [str(tmp_path)])
    assert (found["samples"], found["unread"], found["prompts"]["exact"]) == (3, 2, 1)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds no .tar shard"):
        overlap([Probe("1", "a dog")], (), [str(tmp_path / "none")])


def test_words_are_those_of_any_script():
    assert words_of("  Ein  Häuschen, 2 Bäume! ") == "ein häuschen 2 bäume"
    assert words_of("“画一只狗”") == "画一只狗" and words_of("?!") == ""


def test_the_result_of_an_evaluation_tells_it(tmp_path: Path):
    """POPE's questions about an image that a training sample holds, one with the same words."""
    data = vqa_files.pope(tmp_path / "pope", subsets=("random",))
    image = (data / "COCO_val2014_000000000000.jpg").read_bytes()
    with ShardWriter(tmp_path / "shards") as writer:
        row = {"question": "Is there a cat in the image?", "answer": "yes"}
        writer.write_files("a", {"png": image, "json": json.dumps(row).encode()})
    answers = [{"question_id": f"random/{k}", "answer": "no"} for k in range(4)]
    file = vqa_files.write_lines(tmp_path / "them.jsonl", answers)
    base = ["eval", "vqa", "--task", "pope", "--data", str(data), "--answers", str(file)]
    for words, line in (
        ([], "training overlap not checked"),
        (["--training", str(tmp_path / "shards")], "items in training 1 exact, 0 near of 4"),
    ):
        report = tmp_path / "report.json"
        done = CliRunner().invoke(main, [*base, "--json", str(report), *words])
        assert done.exit_code == 0, done.output
        assert line in " ".join(done.output.split()), "the printed table never drops it"
    found = json.loads(report.read_text())["overlap"]
    assert found["items"]["examples"][0]["what"] == "random/0"
    assert (found["prompts"]["exact"], found["prompts"]["near"]) == (1, 0)
    assert (found["images"]["exact"], found["images"]["of"]) == (1, 2)


def test_prompts_of_geneval_are_looked_for(shards: str, tmp_path: Path):
    """One of two prompts is a training text; a folder without shards stops before the scores."""
    head = {"detector": "ours", "classes": ["dog", "cat"], "num_prompts": 2}
    lines = [
        {
            "id": f"{number:05d}/0000", "boxes": {name: [[0, 0, 9, 9, 0.9]]},
            "metadata": {
                "tag": "single_object", "include": [{"class": name, "count": 1}], "prompt": text,
            },
        }
        for number, (name, text) in enumerate((("dog", "a dog"), ("cat", "a photo of a cat")))
    ]  # fmt: skip
    rows = [{"recipe": head | {"samples_per_prompt": 1}}, *lines]
    file, report = vqa_files.write_lines(tmp_path / "found.jsonl", rows), tmp_path / "report.json"
    words = ["eval", "geneval", "score", str(file), "--json", str(report), "--training"]
    done = CliRunner().invoke(main, [*words, shards])
    assert done.exit_code == 0 and "prompts in training 1 exact, 0 near of 2" in " ".join(
        done.output.split()
    )
    assert json.loads(report.read_text())["overlap"]["items"]["examples"][0]["what"] == "00000"
    (tmp_path / "none").mkdir()
    wrong = CliRunner().invoke(main, [*words, str(tmp_path / "none")])
    assert wrong.exit_code == 2 and "holds no .tar shard" in wrong.output


def test_edits_of_scenes_are_looked_for(tmp_path: Path):
    edits, requests = tmp_path / "edits", SceneEdits(7, 1, 64).requests()
    write_scene_edits(edits, SceneEdits(7, 1, 64))
    for number, request in enumerate(requests):
        image = Image.fromarray(render(request.ideal, 64))
        (tmp_path / "out").mkdir(exist_ok=True)
        image.save(tmp_path / f"out/{number:06d}.png")
    with ShardWriter(tmp_path / "shards") as writer:
        before = Shown(pixels=render(requests[2].shown, 64), role="user")
        writer.write("a", Document((before, Text(requests[2].prompt, role="user"))))
    report = tmp_path / "report.json"
    words = ["eval", "editing", "score", str(tmp_path / "out"), "--edits", str(edits)]
    words += ["--training", str(tmp_path / "shards"), "--json", str(report)]
    assert CliRunner().invoke(main, words).exit_code == 0
    found = json.loads(report.read_text())["overlap"]
    assert [one["what"] for one in found["items"]["examples"]] == ["000002"]
    assert found["images"]["exact"] == found["items"]["exact"] == 1
