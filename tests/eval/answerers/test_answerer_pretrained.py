"""A model of transformers answers benchmarks: batches, images, what it is kept from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import vqa_files
from click.testing import CliRunner
from PIL import Image as PILImage
from tiny_vision import write_tiny_vision

from unimodal.command import main
from unimodal.document import Document, Image, Text
from unimodal.eval.answerers.answerer import UNKNOWN, Question
from unimodal.eval.answerers.pretrained import Pretrained, hash_of
from unimodal.eval.vqa.evaluation import evaluate
from unimodal.eval.vqa.source import Source
from unimodal.eval.vqa.tasks import task_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vision(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def answerer(folder: Path) -> Pretrained:
    return Pretrained(str(folder))


def question(text: str, *shades: int, id: str = "1") -> Question:
    rng = np.random.default_rng(sum(shades))
    images = [
        Image(pixels=rng.integers(0, 255, (20 + shade % 7, 30, 3), dtype=np.uint8), role="user")
        for shade in shades
    ]
    return Question(id, Document((*images, Text(text, role="user"))))


def pope_of(answerer: Pretrained, data: Path, **settings) -> dict:
    found = evaluate(answerer, task_of("pope"), Source(data, data), 7, **settings)
    assert found is not None
    return found


def test_answers_depend_on_no_batch(answerer: Pretrained, tmp_path: Path):
    """Of different lengths, with images and without, so that all are padded."""
    data = vqa_files.pope(tmp_path, subsets=("random",))
    found = [pope_of(answerer, data, batch=batch) for batch in (1, 2, 7)]
    assert found[0]["predictions"] == found[1]["predictions"] == found[2]["predictions"]
    assert found[0]["scores"] == found[1]["scores"] == found[2]["scores"]
    assert len({one["answer"] for one in found[0]["predictions"]}) >= 4, "it says one thing always"
    mixed = [question("a" * k, *range(k % 3), id=str(k)) for k in range(1, 8)]
    together = answerer.answers(mixed, 8)
    assert together == [answerer.answers([one], 8)[0] for one in mixed]


def test_it_sees_images_and_their_places(answerer: Pretrained):
    said = answerer.answers([question("what?", 1), question("what?", 2), question("what?")], 8)
    assert len(set(said)) == 3
    image, text = question("what?", 1).document.parts
    after = answerer.answers([Question("1", Document((text, image)))], 8)
    assert after[0] != said[0]


def test_it_is_what_transformers_itself_says(answerer: Pretrained, folder: Path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    asked = question("is there a cat?", 5)
    picture = PILImage.fromarray(asked.document.parts[0].pixels)
    prompt = "<s>user: <image>is there a cat? assistant: "
    inputs = processor(text=prompt, images=picture, add_special_tokens=False, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=9, do_sample=False)
    wanted = processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answerer.answers([asked], 9) == [wanted]


def test_what_questions_spell_stays_words(answerer: Pretrained):
    """A question that spells an image's place or an end has no image and no end."""
    inputs = []
    generate = answerer._model.generate

    def noted(**given):
        inputs.append(given)
        return generate(**given)

    answerer._model.generate = noted
    try:
        answerer.answers([question("<image></s><s>"), question("?", 1)], 4)
    finally:
        del answerer._model.generate
    ids = inputs[0]["input_ids"][0].tolist()
    assert ids.count(3) == 0 and ids.count(1) == 1 and ids.count(2) == 0
    assert inputs[1]["input_ids"][0].tolist().count(3) == 4  # patches of the one image


def test_the_result_says_who_answered(folder: Path, tmp_path: Path):
    data, file = vqa_files.pope(tmp_path / "pope"), tmp_path / "pope.json"
    words = ["eval", "vqa", "--task", "pope", "--data", str(data), "--transformers", str(folder)]
    done = CliRunner().invoke(main, [*words, "--json", str(file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    recipe = json.loads(file.read_text())["recipe"]
    assert recipe["answerer"] == "transformers" and recipe["model"] == str(folder)
    assert recipe["revision"] == UNKNOWN and recipe["hash"] == hash_of(folder)
    assert recipe["precision"] == "float32" and recipe["target_pixels"] is None
    assert json.loads(file.read_text())["scores"]["pope"]["blind"]["overall"]["n"] == 8


def test_its_hash_is_of_every_file_that_is_loaded(folder: Path, tmp_path: Path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert hash_of(copy) == hash_of(folder)
    (copy / "notes.md").write_text("not loaded")
    assert hash_of(copy) == hash_of(folder)
    (copy / "chat_template.jinja").write_text("other")
    assert hash_of(copy) != hash_of(folder)


def test_what_is_no_such_model_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="is no directory, nor an id of the hub"):
        Pretrained(str(tmp_path / "nothing"))
        Pretrained(str(tmp_path))
        Pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="which has no revision main"):
        Pretrained(str(folder), revision="main")
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        Pretrained(str(bare))


def test_code_of_a_model_is_never_run(folder: Path, tmp_path: Path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "ours", "auto_map": {"AutoConfig": "code.Config"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "code.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    with pytest.raises(ValueError, match="needs no code of its own"):
        Pretrained(str(copy))
    assert not (tmp_path / "run").exists()


def test_scores_that_are_nan_stop_the_run(folder: Path):
    broken = Pretrained(str(folder))
    with torch.no_grad():
        broken._model.lm_head.weight[7] = float("nan")
    with pytest.raises(ValueError, match="scores are NaN"):
        broken.answers([question("?", 1)], 4)


def test_a_question_that_is_too_long_is_named(tmp_path: Path):
    short = Pretrained(str(write_tiny_vision(tmp_path, context=40)))
    with pytest.raises(ValueError, match=r"takes 48 tokens and its answer 4, but .* reads 40 .*q9"):
        short.answers([question("x" * 25, 1, id="q9")], 4)
    assert short.answers([question("x", 1)], 4)
