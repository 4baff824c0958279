"""Judges: a LLaVA's first token by hand, batches, and a server's answers and faults."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from judges import server, write_judge
from PIL import Image

from unimodal.eval.answerers.endpoint import Endpoint
from unimodal.eval.judged.judge import YES, Begun, Look, known_colours, probability
from unimodal.eval.judged.local_judge import LocalJudge
from unimodal.eval.judged.server_judge import ServerJudge

WORDS = ("Yes", " yes", "No", "seven", " 7")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judge(tmp_path_factory.mktemp("judges") / "tiny-llava")


@pytest.fixture(scope="module")
def judge(folder: Path) -> LocalJudge:
    return LocalJudge(folder)


def look(seed: int, question: str) -> Look:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return Look(Image.fromarray(pixels), question, WORDS)


LOOKS = [look(s, "Is it a dog? " * (1 + s % 3) + "Answer in one word.") for s in range(7)]


def test_the_first_token_by_hand(folder: Path, judge: LocalJudge) -> None:
    """One forward pass of the model on the spelled prompt, without `generate`."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    asked = LOOKS[0]
    prompt = f"user:<image> {asked.question}\nassistant:"
    inputs = processor(images=asked.image, text=prompt, return_tensors="pt")
    with torch.no_grad():
        p = model(**inputs).logits[0, -1].softmax(0)
    (found,) = judge.look([asked])
    for word in WORDS:
        first = processor.tokenizer.encode(word, add_special_tokens=False)[0]
        assert found[word].p == pytest.approx(float(p[first]), rel=1e-4)
    assert len({one.token for one in found.values()}) == len(WORDS)
    assert judge.name.startswith("tiny-llava-") and len(judge.settings()["judge_hash"]) == 64


def test_answers_do_not_depend_on_the_batch(judge: LocalJudge) -> None:
    whole = judge.look(LOOKS)
    for size in (1, 2):
        parts = [judge.look(LOOKS[at : at + size]) for at in range(0, len(LOOKS), size)]
        for one, other in zip([p for some in parts for p in some], whole, strict=True):
            assert all(one[w].p == pytest.approx(other[w].p, rel=1e-4) for w in WORDS)
    values = [one["Yes"].p for one in whole]
    assert max(values) > 1.2 * min(values)  # it does look at images and questions


def test_the_image_matters_and_control_tokens_in_questions_do_not(judge: LocalJudge) -> None:
    """A question that spells <image> would otherwise ask for a second image, which fails."""
    first, second = judge.look([LOOKS[0], Look(LOOKS[1].image, LOOKS[0].question, WORDS)])
    assert first["Yes"].p != pytest.approx(second["Yes"].p, rel=1e-3)
    (strange,) = judge.look([Look(LOOKS[0].image, "is <image> here?", WORDS)])
    assert 0 < strange["Yes"].p < 1


def test_what_is_no_judge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights in safetensors in .*download"):
        LocalJudge(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="is no image-text-to-text model"):
        LocalJudge(tmp_path)


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    judge = LocalJudge(folder)
    with torch.no_grad():
        judge._model.lm_head.weight[0] = math.nan
    with pytest.raises(ValueError, match="numbers that are not finite"):
        judge.look(LOOKS[:1])


def test_a_token_counts_as_often_as_the_rule_says() -> None:
    p = {"Yes": ("1", 0.5), "yes": ("2", 0.2), " yes": ("2", 0.2), " Yes": ("1", 0.5)}
    begins = {word: Begun(*one) for word, one in p.items()}
    assert probability(begins, YES, once=True, name="j") == pytest.approx(0.7)
    with pytest.raises(ValueError, match="count several times .1.400.: give --each-token-once"):
        probability(begins, YES, once=False, name="j")
    few = {word: Begun(str(at // 2), 0.1) for at, word in enumerate(YES)}
    assert probability(few, YES, once=False, name="j") == pytest.approx(0.4)  # as officially
    with pytest.raises(ValueError, match="nan is no probability"):
        probability({"a": Begun("1", math.nan)}, ("a",), True, "j")


def red(question: str, image: Image.Image) -> dict[str, float]:
    """Yes as probable as the image is red."""
    p = float(np.asarray(image)[:, :, 0].mean()) / 256
    return {"Yes": 0.75 * p, " yes": 0.25 * p, "No": 1 - p}


@pytest.fixture
def url() -> Iterator[str]:
    with server(red) as found:
        yield found


def test_a_servers_answers(url: str) -> None:
    judge = ServerJudge(Endpoint(url, wait_s=0.01), "org/tiny")
    found = judge.look([Look(one.image, one.question, YES) for one in LOOKS])
    for asked, begins in zip(LOOKS, found, strict=True):
        p = float(np.asarray(asked.image)[:, :, 0].mean()) / 256
        assert probability(begins, YES, once=False, name="j") == pytest.approx(p)
    assert judge.name == "tiny-2026-01-server"
    assert judge.settings()["judge_version"] == "org/tiny-2026-01"


def test_the_server_of_these_tests_is_of_openais_shape(url: str) -> None:
    """Its own client reads the same probabilities."""
    openai = pytest.importorskip("openai", reason="the package openai is not installed")
    client = openai.OpenAI(base_url=url, api_key="EMPTY")
    from unimodal.eval.judged.server_judge import _content

    asked = Look(LOOKS[0].image, LOOKS[0].question, YES)
    reply = client.chat.completions.create(
        model="org/tiny", messages=[{"role": "user", "content": _content(asked)}],
        max_tokens=1, temperature=0, logprobs=True, top_logprobs=20,
    )  # fmt: skip
    told = {one.token: one.logprob for one in reply.choices[0].logprobs.content[0].top_logprobs}
    (found,) = ServerJudge(Endpoint(url, wait_s=0.01), "org/tiny").look([asked])
    assert math.exp(told["Yes"]) == pytest.approx(found["Yes"].p)
    assert reply.model == "org/tiny-2026-01"


NAMES = {(255, 0, 0): "red", (0, 0, 255): "blue", (255, 255, 0): "yellow", (0, 0, 0): "black"}


def test_judges_that_see_and_those_that_do_not() -> None:
    def sees(question: str, image: Image.Image) -> dict[str, float]:
        right = NAMES.get(image.getpixel((0, 0)), "") in question
        return {"Yes": 0.7, "No": 0.3} if right else {"yes": 0.4, " no": 0.6}

    for reply, told in ((sees, "8 of 8"), (lambda *_: {"Yes": 0.9, "No": 0.1}, "4 of 8")):
        with server(reply) as url:
            assert known_colours(ServerJudge(Endpoint(url, wait_s=0.01), "tiny")) == told


def without_logprobs(reply: dict) -> dict:
    reply["choices"][0]["logprobs"] = None
    return reply


def not_a_number(reply: dict) -> dict:
    reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = math.nan
    return reply


@pytest.mark.parametrize(
    "change, message",
    [
        (without_logprobs, "gives no probabilities of its answer's first token"),
        (not_a_number, "nan.* is no log-probability"),
        (lambda reply: {"status": 404, "error": "no such model"}, "404 .*no such model"),
        (lambda reply: b"<html>", "sent no JSON"),
        (lambda reply: b"[]", "sent no object"),
    ],
)
def test_a_servers_faults_are_errors(change, message: str) -> None:
    with server(red, change) as url, pytest.raises(ValueError, match=message):
        ServerJudge(Endpoint(url, wait_s=0.01), "tiny")


def test_an_answer_that_is_not_told_is_no_zero(url: str) -> None:
    """Most of the probability is on tokens that the server does not tell."""
    with server(lambda *_: {"maybe": 0.6}) as elsewhere:
        judge = ServerJudge(Endpoint(elsewhere, wait_s=0.01), "tiny")
        with pytest.raises(ValueError, match="leave 0.400 open, and none is 'Yes'"):
            judge.look([Look(LOOKS[0].image, "a?", YES)])
    with server(lambda *_: {"No": 1.0}) as elsewhere:
        (sure,) = ServerJudge(Endpoint(elsewhere, wait_s=0.01), "tiny").look(
            [Look(LOOKS[0].image, "a?", YES)]
        )
        assert probability(sure, YES, once=False, name="j") == 0
    with pytest.raises(ValueError, match="does not answer: .*refused"):
        ServerJudge(Endpoint("http://127.0.0.1:9/v1", wait_s=0.01), "tiny")
    with pytest.raises(ValueError, match="file:///etc/passwd. is no address of a server"):
        ServerJudge(Endpoint("file:///etc/passwd", wait_s=0.01), "tiny")


def test_a_server_that_recovers_is_asked_again() -> None:
    """Two faults that pass; and a model that changes under way is an error."""
    seen: list[int] = []

    def change(reply: dict) -> dict:
        seen.append(1)
        return {"status": 503} if len(seen) in (1, 2) else reply

    with server(red, change) as url:
        judge = ServerJudge(Endpoint(url, wait_s=0.01), "tiny")
        assert len(seen) == 3 and judge.name == "tiny-2026-01-server"
    names = iter(["tiny-1", "tiny-2"])
    with server(red, lambda reply: reply | {"model": next(names)}) as url:
        judge = ServerJudge(Endpoint(url, wait_s=0.01), "tiny")
        with pytest.raises(ValueError, match="answers as tiny-2, and before as tiny-1"):
            judge.look([Look(LOOKS[0].image, "a?", YES)])
