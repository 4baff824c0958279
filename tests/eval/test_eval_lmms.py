"""Our models in lmms-eval, by its own classes; skipped where the package is not installed.

pip install --target lmms --no-deps lmms-eval   # and what it imports, but never torch
PYTHONPATH=.:lmms pytest tests/eval/test_eval_lmms.py
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unimodal
from unimodal.data.scenes.world import render, scene

pytest.importorskip("lmms_eval.api.model", reason="lmms-eval is not installed")
from lmms_eval.api.instance import Instance
from lmms_eval.models.registry_v2 import ModelRegistryV2

from unimodal.eval.lmms import PLACE, UnimodalChat, UnimodalSimple, cut, manifests

TASK, SPLIT = "scenes", "test"
GREEDY = {"max_new_tokens": 8, "do_sample": False, "temperature": 0, "until": ["\n\n"]}


@pytest.fixture(scope="module")
def docs() -> list[dict]:
    return [
        {"image": Image.fromarray(render(scene(5, number), 64)), "question": question}
        for number, question in enumerate(
            ("How many things are there?", "What colour is the background?", "Is there a star?")
        )
    ]


def messages(doc: dict) -> list[dict]:
    content = [{"type": "image", "url": doc["image"]}, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]


def chat_requests(docs: list[dict], options: dict = GREEDY) -> list[Instance]:
    return [
        _instance(number, (doc["question"], messages, options)) for number, doc in enumerate(docs)
    ]


def simple_requests(docs: list[dict], tag: str = "", options: dict = GREEDY) -> list[Instance]:
    visual = lambda doc: [doc["image"]]  # noqa: E731
    return [
        _instance(number, (f"{tag}{doc['question']}", options, visual))
        for number, doc in enumerate(docs)
    ]


def _instance(number: int, arguments: tuple) -> Instance:
    metadata = {"task": TASK, "doc_id": number, "repeats": 1}
    whole = (*arguments, number, TASK, SPLIT)
    return Instance("generate_until", arguments=whole, idx=0, metadata=metadata)


def ready(model: UnimodalChat, docs: list[dict]) -> UnimodalChat:
    model.task_dict = {TASK: {SPLIT: docs}}
    return model


def test_its_registry_takes_both_classes():
    registry = ModelRegistryV2()
    for manifest in manifests():
        registry.register_manifest(manifest)
    assert registry.get_model_class("unimodal") is UnimodalChat
    assert registry.get_model_class("unimodal", force_simple=True) is UnimodalSimple


def test_the_entry_point_is_ours():
    import tomllib

    root = Path(__file__).resolve().parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lmms_eval.models"] == {
        "unimodal": "unimodal.eval.lmms:manifests"
    }


def test_answers_are_those_of_a_chat_whatever_the_form_and_batch(docs: list[dict]):
    greedy = {"max_text_tokens": 8, "text_temperature": 0.0}
    chat = unimodal.Chat(unimodal.load(), **greedy)
    wanted = []
    for doc in docs:
        wanted.append(chat(doc["question"], [doc["image"]], "text").text)
        chat = unimodal.Chat(chat.model, **greedy)
    assert len(set(wanted)) >= 2
    model = ready(UnimodalChat.create_from_arg_string("batch_size=2"), docs)
    assert model.generate_until(chat_requests(docs)) == wanted
    model.batch_size = 1
    assert model.generate_until(chat_requests(docs)[::-1]) == wanted[::-1]
    simple = ready(UnimodalSimple(batch_size=7), docs)
    assert simple.generate_until(simple_requests(docs)) == wanted
    assert simple.generate_until(simple_requests(docs, tag=PLACE)) == wanted


def test_images_come_back_as_paths(docs: list[dict], tmp_path: Path):
    drawing = UnimodalSimple(reply="image", output=str(tmp_path), batch_size=3, seed=4)
    said = ready(drawing, docs).generate_until(simple_requests(docs[:2]))
    files = [Path(json.loads(one)["images"][0]) for one in said]
    assert all(file.is_absolute() and file.is_relative_to(tmp_path) for file in files)
    assert np.asarray(Image.open(files[0])).shape == (64, 64, 3) and len(set(files)) == 2
    chat = unimodal.Chat(drawing._model, seed=4, text_temperature=0.0, max_text_tokens=8)
    planned = chat(docs[0]["question"], [docs[0]["image"]], "image")
    assert json.loads(said[0])["text"] == planned.text
    assert np.array_equal(np.asarray(Image.open(files[0])), np.asarray(planned.images[0]))


def test_what_cannot_be_shown_is_refused(docs: list[dict]):
    simple = ready(UnimodalSimple(), docs)
    with pytest.raises(ValueError, match=r"2 of <image>, and 1 images"):
        simple.generate_until(simple_requests(docs, tag=PLACE * 2))
    for url in ("http://169.254.169.254/", "/etc/passwd"):
        other = ready(UnimodalChat(), [{"image": url, "question": "?"}])
        with pytest.raises(ValueError, match="nothing is fetched"):
            other.generate_until(chat_requests(other.task_dict[TASK][SPLIT]))
    with pytest.raises(ValueError, match="num_beams 5"):
        simple.generate_until(simple_requests(docs, options=GREEDY | {"num_beams": 5}))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"reply": "film"}, "text or image"),
        ({"reply": "image"}, "need each other"),
        ({"output": "x"}, "need each other"),
        ({"batch_size": 9, "max_batch_size": 8}, "exceeds max_batch_size=8"),
        ({"max_aspect_ratio": 0.5}, "max_aspect_ratio 0.5"),
    ],
)
def test_wrong_arguments_are_refused(given: dict, told: str):
    with pytest.raises(ValueError, match=told):
        UnimodalChat(**given)


def test_what_it_does_not_do_is_said():
    model = UnimodalChat()
    with pytest.raises(NotImplementedError, match="without likelihoods"):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError, match="one round"):
        model.generate_until_multi_round([])


def test_answers_end_at_stop_strings():
    assert cut("red.\n\nQuestion: x", ["\n\n", "."]) == "red"
    assert cut("red", ["\n\n", ""]) == cut("red", []) == "red"
