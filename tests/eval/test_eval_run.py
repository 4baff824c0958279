"""The loop that asks: batches, turns, resuming after a kill, ranks, and what it refuses."""

import json
import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import unimodal
from unimodal.bundle import save_bundle
from unimodal.document import Document, Image, Text
from unimodal.eval.answer import Answer
from unimodal.eval.predictions import PredictionsFile
from unimodal.eval.run import Evaluator, Turn, Turns, rank_of, run
from unimodal.eval.score import Prediction
from unimodal.generation import generate
from unimodal.model import Model
from unimodal.sampling import Sampling

SAMPLING = Sampling(text_temperature=1.0, max_text_tokens=10, max_images=1)
RECIPE = {"evaluation": "small talk", "model": "a", "seed": 1}


@dataclass(frozen=True)
class Said:
    """Something said to a model, perhaps beside an image, and what is said to its reply."""

    number: int
    text: str
    then: str = ""
    shows_image: bool = False

    @property
    def id(self) -> str:
        return f"{self.number:02d}"


class SmallTalk(Evaluator[Said]):
    """Asks twelve things: a third show an image, a quarter must draw, a quarter go on to draw."""

    name = "small talk"

    def requests(self) -> list[Said]:
        return [
            Said(k, f"draw {k} circles", "make it blue" * (k % 4 == 0), k % 3 == 0)
            for k in range(12)
        ]

    def turns(self, request: Said) -> Turns:
        pixels = np.full((16, 24, 3), 20 * request.number, dtype=np.uint8)
        seen = [Image(pixels=pixels, role="user")] if request.shows_image else []
        document = Document((*seen, Text(request.text, role="user")))
        modality = "image" if request.number % 4 == 1 else None
        parts = yield Turn(document, replace(SAMPLING, seed=request.number), modality)
        if request.then:
            more = Document((*document.parts, *parts, Text(request.then, role="user")))
            yield Turn(more, replace(SAMPLING, seed=100 + request.number), "image")

    def score(self, request: Said, answer: Answer) -> Prediction:
        answers = [*answer.earlier, answer]
        return {
            "kind": "two turns" if request.then else "one turn",
            "answer": [one.text for one in answers],
            "codes": [[list(codes) for codes in one.codes] for one in answers],
            "brightness": [int(image.mean()) for image in answer.images],
            "right": bool(answer.images),
        }


class UntilKilled(SmallTalk):
    """Is killed by the system when its eighth answer is there."""

    num_scored = 0

    def score(self, request: Said, answer: Answer) -> Prediction:
        self.num_scored += 1
        if self.num_scored == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(request, answer)


def ask_until_killed(bundle: Path, path: Path) -> None:
    """Run in a process of its own; unlike the others here it has 4 requests in flight."""
    with PredictionsFile(path, RECIPE) as predictions:
        run(unimodal.load(bundle), UntilKilled(), predictions, batch=4)


@pytest.fixture(scope="module")
def model(tiny_model: Model, tmp_path_factory) -> Model:
    """As loaded from a bundle, whose weights are rounded."""
    return unimodal.load(save_bundle(tmp_path_factory.mktemp("bundle") / "bundle", tiny_model))


@pytest.fixture(scope="module")
def whole(model: Model) -> list[Prediction]:
    """What a run predicts that nothing disturbs."""
    return run(model, SmallTalk())


def test_the_model_says_something_else_to_each(whole):
    assert len({str(p["answer"]) for p in whole}) > 8
    drawn = [codes for p in whole for codes in p["codes"]]
    assert 6 <= sum(map(bool, drawn)) < len(drawn)


def test_a_second_turn_follows_the_reply_to_the_first(model, whole):
    (said,) = [one for one in SmallTalk().requests() if one.number == 8]
    first = Document((Text(said.text, role="user"),))
    (reply,) = generate(model, [first], replace(SAMPLING, seed=8))
    second = Document((*first.parts, *reply, Text("make it blue", role="user")))
    (image,) = generate(model, [second], replace(SAMPLING, seed=108), "image")[0]
    assert whole[8]["codes"][1] == [image.codes[:, 0].tolist()]
    assert whole[8]["answer"][0] == Answer.of([p for p in reply if isinstance(p, Text)]).text
    assert [len(p["answer"]) for p in whole] == [2, 1, 1, 1] * 3
    assert all(p["brightness"] for p in whole[::4]), "a turn that must draw has drawn"


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_answers_depend_on_no_batch_size(model, whole, batch):
    assert run(model, SmallTalk(), batch=batch) == whole


def test_conversations_of_several_turns_are_open_together(model, whole, monkeypatch):
    """With room for three, those that go on are answered beside new ones."""
    monkeypatch.setattr("unimodal.eval.run.MAX_OPEN", 3)
    assert run(model, SmallTalk(), batch=3) == whole


def test_predictions_are_written_as_they_come(model, tmp_path):
    path = tmp_path / "predictions.jsonl"

    class Watched(SmallTalk):
        num_lines: list[int] = []

        def score(self, request: Said, answer: Answer) -> Prediction:
            self.num_lines.append(path.read_text().count("\n"))
            return super().score(request, answer)

    with PredictionsFile(path, RECIPE) as predictions:
        run(model, Watched(), predictions, batch=4)
    assert Watched.num_lines == list(range(1, 13))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"recipe": RECIPE}
    assert [line["id"] for line in lines[1:]] == [f"{k:02d}" for k in range(12)]


def test_a_killed_run_resumes_to_the_same_file(model, whole, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed.jsonl", tmp_path / "killed.jsonl"
    with PredictionsFile(undisturbed, RECIPE) as predictions:
        assert run(model, SmallTalk(), predictions) == whole
    bundle = save_bundle(tmp_path / "bundle", model)
    process = multiprocessing.get_context("spawn").Process(
        target=ask_until_killed, args=(bundle, killed)
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert killed.read_text().count("\n") == 1 + 7
    killed.write_bytes(killed.read_bytes()[:-20])  # and the disk lost the end of a line

    class Counted(SmallTalk):
        asked: list[str] = []

        def score(self, request: Said, answer: Answer) -> Prediction:
            self.asked.append(request.id)
            return super().score(request, answer)

    with PredictionsFile(killed, RECIPE) as predictions:
        assert len(predictions) == 6
        assert run(model, Counted(), predictions) == whole
    assert len(Counted.asked) == 6
    assert killed.read_bytes() == undisturbed.read_bytes()


def test_the_shards_of_two_ranks_join_to_the_whole(model, whole, tmp_path):
    undisturbed = tmp_path / "undisturbed.jsonl"
    with PredictionsFile(undisturbed, RECIPE) as predictions:
        predictions.update({f"{k:02d}": prediction for k, prediction in enumerate(whole)})
    for rank in range(2):
        with PredictionsFile(tmp_path / f"{rank}.jsonl", RECIPE) as shard:
            found = run(model, SmallTalk(), shard, rank=rank, world_size=2)
            assert 0 < len(found) == len(shard) < 12
    with PredictionsFile(tmp_path / "joined.jsonl", RECIPE) as joined:
        for rank in range(2):
            with PredictionsFile(tmp_path / f"{rank}.jsonl", RECIPE) as shard:
                assert not set(shard) & set(joined)
                joined.update(shard)
        assert len(joined) == 12
        assert run(model, SmallTalk(), joined) == whole
    assert (tmp_path / "joined.jsonl").read_bytes() == undisturbed.read_bytes()


def test_ranks_have_about_as_much_to_do():
    counts = np.bincount([rank_of(f"question {k}", 8) for k in range(8000)])
    assert len(counts) == 8 and abs(counts - 1000).max() < 4 * (8000 * 7 / 64) ** 0.5


def test_the_summary_is_the_mean_by_kind_unless_an_evaluator_has_another(whole):
    summary = SmallTalk().summary(whole)
    assert summary["two turns"].value == 1 and summary["two turns"].n == 3
    assert summary["one turn"].value == 3 / 9 and summary["overall"].value == (1 + 3 / 9) / 2

    class F1(SmallTalk):
        def summary(self, predictions: list[Prediction]) -> dict[str, float]:
            pairs = [(p["answer"] == "yes", p["expected"] == "yes") for p in predictions]
            both = sum(said and true for said, true in pairs)
            return {"f1": 2 * both / sum(said + true for said, true in pairs)}

    said = [("yes", "yes"), ("yes", "no"), ("no", "yes"), ("yes", "yes"), ("no", "no")]
    predictions = [{"answer": answer, "expected": expected} for answer, expected in said]
    assert F1().summary(predictions) == {"f1": 2 * 2 / (3 + 3)}


def test_two_requests_of_one_id_are_refused(model):
    class Twice(SmallTalk):
        def requests(self) -> list[Said]:
            return [Said(1, "draw"), Said(1, "paint")]

    with pytest.raises(ValueError, match="small talk: two requests have the id '01'"):
        run(model, Twice())


def test_a_rank_that_is_none_is_refused(model):
    with pytest.raises(ValueError, match="rank 2 of 2: ranks are 0 to 1"):
        run(model, SmallTalk(), rank=2, world_size=2)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"model": "b"}, "model a, not b"),
        ({"prompts": "c"}, "prompts None, not c"),
        ({"seed": 2, "model": "b"}, "model a, not b, seed 1, not 2"),
    ],
)
def test_a_file_of_another_recipe_is_refused(tmp_path, recipe, told):
    path = tmp_path / "predictions.jsonl"
    with PredictionsFile(path, RECIPE) as predictions:
        predictions["1"] = {"right": True}
    before = path.read_bytes()
    with pytest.raises(ValueError) as error:
        PredictionsFile(path, RECIPE | recipe)
    assert f"another recipe ({told}): name another file, or remove it" in str(error.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        "remember the milk", "remember\nthe milk\n", "[1]\n", '{"recipe": 1}\n', "\n",
        f"{'[' * 100_000}\n", '{"recipe": {}}\n{"id": 7}\n',
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"notes\.txt is no file of predictions"):
        PredictionsFile(path, RECIPE)
    assert path.read_text() == content


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text(
        f'{json.dumps({"recipe": RECIPE})}\n{{"id": "1"}}\n{{"id": "2", "wo\n{{"id": "3"}}\n'
    )
    with pytest.raises(ValueError, match=r"no file of predictions \(line 3: Unterminated string"):
        PredictionsFile(path, RECIPE)


def test_half_a_character_that_a_server_answered_is_read_again(tmp_path):
    path = tmp_path / "predictions.jsonl"
    for _ in range(2):
        with PredictionsFile(path, RECIPE) as predictions:
            predictions["1"] = {"answer": "a \ud83d"}
    assert predictions["1"] == {"answer": "a \ud83d"}


@pytest.mark.parametrize("num_bytes", [0, 1, 30])
def test_a_run_killed_before_its_first_line_begins_again(tmp_path, num_bytes):
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps({"recipe": RECIPE})[:num_bytes])
    with PredictionsFile(path, RECIPE) as predictions:
        predictions["1"] = {"codes": ((1, 2),)}
        assert predictions["1"] == {"codes": [[1, 2]]}, "what is kept is what a reader will find"
    with PredictionsFile(path, RECIPE) as again:
        assert dict(again) == {"1": {"codes": [[1, 2]]}}
