"""Files that are damaged or hostile: one line that says what is wrong, before anything is asked."""

import json
from pathlib import Path

import pytest
import vqa_files
from click.testing import CliRunner

from unimodal.command import main
from unimodal.eval.answerers.answers_file import AnswersFile
from unimodal.eval.vqa.evaluation import evaluate
from unimodal.eval.vqa.source import Source
from unimodal.eval.vqa.tasks import task_of

IMAGE, QUESTIONS = "COCO_val2014_000000000000.jpg", "coco_pope_random.json"
ANSWERS = [{"question_id": f"random/{k}", "answer": "yes"} for k in range(4)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return vqa_files.pope(tmp_path / "pope", subsets=("random",))


def refused(*words: str | Path) -> str:
    """What a command says in one line before it ends."""
    done = CliRunner().invoke(main, ["eval", *map(str, words)])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.output
    assert len(done.output.strip().splitlines()) == 1, done.output
    return done.output


def asked(data: Path) -> str:
    answers = vqa_files.write_lines(data.parent / "answers.jsonl", ANSWERS)
    return refused("vqa", "--task", "pope", "--data", data, "--answers", answers)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "there is no such file"),
        (b"", "not an image of a known format"),
        (b"hello", "not an image of a known format"),
        (vqa_files.png(3)[:50], "damaged or truncated"),
        (vqa_files.png(3, (1, 1)), "too small"),
    ],
)
def test_an_image_that_is_missing_or_broken_is_no_wrong_answer(data: Path, content, told: str):
    if content is None:
        (data / IMAGE).unlink()
    else:
        (data / IMAGE).write_bytes(content)
    said = asked(data)
    assert told in said and IMAGE in said and "nothing is scored" in said


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("file:///etc/passwd", "nothing is fetched"),
        ("http://169.254.169.254/latest/meta-data", "nothing is fetched"),
        ("https://localhost:1/x.png", "nothing is fetched"),
        ("//internal/x.png", "nothing is fetched"),
        ("/etc/passwd", "leads out of the folder"),
        ("../x.png", "leads out of the folder"),
        ("link.png", "leads out of the folder"),
        ("data:image/png;base64,AAAA", "not an image of a known format"),
        ("a\0b.png", "is no path"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_nothing_outside_of_the_folder_is_read_or_fetched(data: Path, name: str, told: str):
    (data / "link.png").symlink_to("/etc/passwd")
    rows = [json.loads(line) for line in (data / QUESTIONS).read_text().splitlines()]
    rows[2]["image"] = name
    vqa_files.write_lines(data / QUESTIONS, rows)
    assert told in asked(data)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"question_id": 0, "text": "\xff"}', "is no UTF-8"),
        ('{"question_id": 1}'.encode("utf-16"), "is no UTF-8"),
        (b'{"question_id": NaN}', "holds NaN"),
        (b'{"question_id": -Infinity}', "holds -Infinity"),
        (b'{"question_id": 1e999}', "holds 1e999"),
        (b'{"question_id": 1, "text": "\\ud800"}', "surrogates not allowed"),
        (b'{"question_id": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b"[" * 100_000, "recursion"),
        (b'{"ques', "is no JSON"),
        (b'{"question_id": 1, "question_id": 2}', "the key 'question_id' twice"),
        (b"[1]", "is no object"),
        (b"", "no questions"),
    ],
)
def test_what_is_no_file_of_questions(data: Path, content: bytes, told: str):
    (data / QUESTIONS).write_bytes(content)
    assert told in asked(data)


def test_letters_of_two_escapes_are_one_letter(data: Path):
    row = {"question_id": 0, "image": IMAGE, "text": "\U0001f600?", "label": "yes"}
    vqa_files.write_lines(data / QUESTIONS, [row])
    assert "\\ud83d" in (data / QUESTIONS).read_text()
    assert task_of("pope").items(Source(data, data))[0].question == "\U0001f600?"


# --- kept predictions ---------------------------------------------------------------------------


@pytest.fixture
def kept(data: Path) -> Path:
    """A whole file of predictions."""
    answers = vqa_files.write_lines(data.parent / "answers.jsonl", ANSWERS)
    file = data.parent / "kept.jsonl"
    evaluate(AnswersFile(answers), task_of("pope"), Source(data, data), 7, file=file)
    return file


@pytest.mark.parametrize("name", ["item", "pass", "kind", "group", "prompt", "expected", "answer"])
@pytest.mark.parametrize("value", [None, 3, [1], float("nan")])
def test_a_prediction_of_another_kind_is_named(kept: Path, name: str, value):
    head, *rows = [json.loads(line) for line in kept.read_text().splitlines()]
    rows[1][name] = value
    vqa_files.write_lines(kept, [head, *rows])
    said = refused("score", "vqa", kept)
    assert "line 3" in said and (name in said or "NaN" in said)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("task", "popes", "no task 'popes'"), ("task", None, "task of its recipe is None"),
        ("seed", "x", "seed of its recipe is 'x'"), ("seed", True, "seed of its recipe is True"),
        ("requests", "4", "requests of its recipe is '4'"), ("requests", 3, "4 of 3 predictions"),
        ("requests", 5, "4 of 5 predictions are there; run"), ("questions", "0", "are not those"),
        ("evaluation", "scenes", "holds no predictions"),
    ],
)  # fmt: skip
def test_a_recipe_of_another_kind_is_named(kept: Path, name: str, value, told: str):
    head, *rows = [json.loads(line) for line in kept.read_text().splitlines()]
    head["recipe"][name] = value
    vqa_files.write_lines(kept, [head, *rows])
    assert told in refused("score", "vqa", kept)


def test_ids_are_of_what_they_name(kept: Path):
    whole = kept.read_text()
    kept.write_text(whole.replace('"id": "seen/random/0"', '"id": "seen/random/9"'))
    assert "the id seen/random/9 is not of random/0" in refused("score", "vqa", kept)
    kept.write_text(whole + whole.splitlines()[1])
    assert "is there twice" in refused("score", "vqa", kept)
    kept.write_text(whole[:-30])
    assert "is no JSON" in refused("score", "vqa", kept)


def test_types_of_seedbench_are_names(tmp_path: Path):
    file = vqa_files.seedbench(tmp_path) / "SEED-Bench.json"
    vqa_files.write_json(file, json.loads(file.read_text()) | {"question_type": 3})
    with pytest.raises(ValueError, match="question_type is 3"):
        task_of("seedbench").items(Source(tmp_path, tmp_path))
