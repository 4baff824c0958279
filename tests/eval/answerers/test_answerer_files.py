"""Answers that another program wrote, through the evaluation of models."""

import json
from pathlib import Path

import pytest
import vqa_files
from click.testing import CliRunner

from unimodal.command import main
from unimodal.eval.answerers.answers_file import AnswersFile
from unimodal.eval.vqa.evaluation import evaluate, scored_again, scored_answers
from unimodal.eval.vqa.source import Source
from unimodal.eval.vqa.tasks import task_of

RIGHT = {"random/0": "yes", "random/1": "no", "random/2": "Yes, one.", "random/3": ""}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return vqa_files.pope(tmp_path / "pope", subsets=("random",))


def written(file: Path, answers: dict[str, str]) -> Path:
    rows = [{"question_id": id, "answer": answer} for id, answer in answers.items()]
    return vqa_files.write_lines(file, rows)


def test_they_are_scored_as_a_models(data: Path, tmp_path: Path):
    file, source = written(tmp_path / "them.jsonl", RIGHT), Source(data, data)
    kept = tmp_path / "kept.jsonl"
    found = [
        evaluate(AnswersFile(file), task_of("pope"), source, 7, batch=batch, file=kept)
        for batch in (1, 2, 7)
    ]
    assert found[0]["predictions"] == found[1]["predictions"] == found[2]["predictions"]
    scores = found[0]["scores"]["pope"]
    assert scores["overall"].value == 0.75, "POPE takes an empty answer for yes"
    assert scores["unparsed"].value == 0.25 and "blind" not in scores
    without_images = scored_answers(task_of("pope"), source, file, 7)
    assert without_images["scores"] == found[0]["scores"]
    assert scored_again([kept])["scores"] == found[0]["scores"]


def test_the_result_says_whose_they_are(data: Path, tmp_path: Path):
    file, report = written(tmp_path / "them.jsonl", RIGHT), tmp_path / "report.json"
    words = ["eval", "vqa", "--task", "pope", "--data", str(data), "--answers", str(file)]
    done = CliRunner().invoke(main, [*words, "--json", str(report)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    recipe = json.loads(report.read_text())["recipe"]
    assert (recipe["answerer"], recipe["model"]) == ("answers", "them.jsonl")
    assert len(recipe["hash"]) == 64 and recipe["revision"] == "unknown"
    refused = CliRunner().invoke(main, [*words, "--target-pixels", "99"])
    assert refused.exit_code != 0 and "images of some size" in refused.output


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"question_id": "random/0", "answer": "yes"}', "3 ids are on one side alone"),
        (json.dumps([{"question_id": k, "answer": ""} for k in range(4)]).encode(), "8 ids"),
        (b'{"question_id": "random/0", "answer": NaN}', "it holds NaN"),
        (b'{"question_id": "random/0", "answer": 3}', "an answer is text, not 3"),
        (b'{"question_id": "random/0", "answer": null}', "has no answer or prediction"),
        (b'{"question_id": "", "answer": "yes"}', "question_id is empty"),
        (b'{"question_id": "r", "answer": "a"}\n{"question_id": "r", "answer": "b"}', "twice"),
        (b'{"question_id": "random/0", "answer": "\xff"}', "is no UTF-8"),
        (b'{"question_id": "random/0", "answ', "line 1 is no JSON"),
        (b"", "has 0 answers"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_one_error(data: Path, tmp_path: Path, content: bytes, told: str):
    file = tmp_path / "them.jsonl"
    file.write_bytes(content)
    for words in (
        ["eval", "vqa", "--task", "pope", "--data", str(data), "--answers", str(file)],
        ["eval", "score", "pope", str(file), "--data", str(data)],
    ):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 2 and told in done.output, done.output
        assert len(done.output.strip().splitlines()) == 1, "one line"
