"""`eval judged` and `eval score judged`: from files to scores, resumed, divided, scored again."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from judges import server, write_judge
from PIL import Image

from unimodal.command import main
from unimodal.data.shards import ShardWriter
from unimodal.document import Document, Text
from unimodal.eval.judged.compbench import CompBench
from unimodal.eval.judged.evaluation import evaluate
from unimodal.eval.judged.judge import Begun, Judge
from unimodal.eval.score import digest


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judge(tmp_path_factory.mktemp("judges") / "tiny-llava")


@pytest.fixture
def asked(tmp_path: Path) -> tuple[object, ...]:
    """Six images of three prompts, and the words of a command that asks about them."""
    rng = np.random.default_rng(0)
    prompts = ["a red dog", "a blue cat", "a mat"]
    (tmp_path / "color_val.txt").write_text("\n".join(prompts))
    (tmp_path / "drawn").mkdir()
    for prompt in prompts:
        for sample in range(2):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "drawn" / f"{prompt}_{sample:06d}.png")
    words = ("--questions", tmp_path / "color_val.txt", "--images", tmp_path / "drawn")
    return "eval", "judged", "compbench", *words


@pytest.fixture
def kept(tmp_path: Path) -> str:
    """Lines of a run of one question."""
    prompts, images = tmp_path / "color_val.txt", tmp_path / "drawn"
    prompts.write_text("a red dog")
    images.mkdir()
    Image.new("RGB", (16, 16)).save(images / "a red dog_000000.png")
    (question,) = CompBench().questions(prompts, images, 1)
    evaluate(Sure(), CompBench(), [question], file=tmp_path / "run.jsonl")
    return (tmp_path / "run.jsonl").read_text()


class Sure(Judge):
    """Begins every answer with Yes."""

    name = "sure"

    def settings(self) -> dict:
        return {}

    def look(self, asked):
        return [{w: Begun(w, float(w == "Yes")) for w in one.words} for one in asked]


def report(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_run_that_stopped_goes_on_and_is_scored_again(
    asked: tuple, judge: Path, tmp_path: Path
) -> None:
    kept, first, again = (tmp_path / name for name in ("kept.jsonl", "first.json", "again.json"))
    words = (*asked, "--judge", judge, "--predictions", kept)
    done = command(*words, "--json", first)
    assert done.exit_code == 0, done.output
    found = report(first)
    ((name, scores),) = found["scores"].items()
    version = found["recipe"]["judge_hash"][:8]
    assert name == f"compbench_by_tiny-llava-{version}"
    p = [one["p"] for one in found["predictions"]]
    value = np.mean([one["yes"] / (one["yes"] + one["no"]) for one in p])
    assert np.mean([one["value"] for one in found["predictions"]]) == pytest.approx(value)
    assert scores["vqascore_color_val"]["value"] == pytest.approx(value) and 0.02 < value < 0.98
    assert found["recipe"]["judge_on_plain_colours"].endswith(" of 8")
    assert scores["vqascore_color_val"]["n"] == 6 and found["recipe"]["num_images"] == 6
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) * 2 // 3])  # killed in the middle of a line
    half = command("eval", "score", "judged", kept)
    assert half.exit_code == 2 and "of 6 answers are there" in half.output
    assert command(*words, "--batch-size", 1).exit_code == 0
    lines = [[json.loads(line) for line in text.splitlines()] for text in
             (whole.decode(), kept.read_text())]  # fmt: skip
    assert len(lines[1]) == 7 and lines[0][0] == lines[1][0]
    done = command("eval", "score", "judged", kept, "--json", again)
    assert done.exit_code == 0, done.output
    assert report(again)["scores"][name]["vqascore_color_val"]["value"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"task": "compbench"', '"task": "dpg"', "the questions are not of dpg: KeyError"),
        ('"task": "compbench"', '"task": "no"', "no benchmark 'no'"),
        ('"requests": ', '"x": ', "requests of its recipe is None"),
        ('"scorer": ', '"x": ', "scorer of its recipe is None"),
        ('"each_token_once": true', '"each_token_once": 1', "each_token_once of its recipe is 1"),
    ],
)
def test_recipes_that_were_changed(tmp_path: Path, kept: str, old: str, new: str, told: str):
    assert old in kept
    (tmp_path / "kept.jsonl").write_text(kept.replace(old, new, 1))
    done = command("eval", "score", "judged", tmp_path / "kept.jsonl")
    assert done.exit_code == 2 and told in done.output, done.output


def test_prompts_that_were_trained_on_are_counted(
    asked: tuple, judge: Path, tmp_path: Path
) -> None:
    with ShardWriter(tmp_path / "shards") as writer:
        for number, text in enumerate(["A red dog!", "a blue dog", "nothing"]):
            writer.write(str(number), Document((Text(text, role="user"),)))
    words = (*asked, "--judge", judge, "--json", tmp_path / "found.json")
    assert command(*words).exit_code == 0
    assert report(tmp_path / "found.json")["recipe"]["training_overlap"] == "not checked"
    done = command(*words, "--training", tmp_path / "shards")
    assert done.exit_code == 0, done.output
    found = report(tmp_path / "found.json")["overlap"]["prompts"]
    assert (found["of"], found["exact"], found["near"]) == (3, 1, 0)
    kept = ("--predictions", tmp_path / "kept.jsonl", "--ranks", 2)
    refused = command(*asked, "--judge", judge, *kept, "--training", tmp_path / "shards")
    assert refused.exit_code == 2 and "--training is of a run that scores" in refused.output
    missing = command(*words, "--training", tmp_path / "none")
    assert missing.exit_code == 2 and "none" in missing.output


def test_ranks_answer_what_one_would(asked: tuple, judge: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    assert command(*asked, "--judge", judge, "--json", alone).exit_code == 0
    for rank in range(2):
        done = command(
            *asked, "--judge", judge, "--rank", rank, "--ranks", 2,
            "--predictions", tmp_path / "kept.jsonl",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
    files = sorted(tmp_path.glob("kept.*-of-2.jsonl"))
    one = command("eval", "score", "judged", files[0])
    assert one.exit_code == 2 and "answers are there" in one.output
    done = command("eval", "score", "judged", *files, "--json", together)
    assert done.exit_code == 0, done.output
    ((name, first),), ((other, second),) = (
        report(file)["scores"].items() for file in (alone, together)
    )
    key = "vqascore_color_val"
    assert name == other and first[key]["value"] == pytest.approx(second[key]["value"], rel=1e-4)
    twice = command("eval", "score", "judged", files[0], *files)
    assert twice.exit_code == 2 and "is there twice" in twice.output


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda one: one["p"].update(yes=float("nan")), "line 2: it holds NaN"),
        (lambda one: one["p"].update(yes=1.5), "1.5 is no probability"),
        (lambda one: one["p"].update(yes=None), "None is no probability"),
        (lambda one: one["p"].pop("no"), "has not a probability for each of no, yes"),
        (lambda one: one.pop("p"), "has not a probability for each of no, yes"),
        (lambda one: one.update(expected="no"), "the questions are not those of the first line"),
    ],
)
def test_kept_answers_that_are_none_are_errors(tmp_path: Path, change, message: str) -> None:
    one = {
        "item": "00000", "cell": 0, "number": 0, "prompt": "a dog", "question": "a dog?",
        "expected": "yes", "kind": "color_val", "about": {}, "answers": ["no", "yes"],
    }  # fmt: skip
    recipe = {
        "evaluation": "judged", "task": "compbench", "scorer": "tiny", "requests": 1,
        "each_token_once": True, "questions": digest([one]),
    }  # fmt: skip
    line = {"id": "00000/0/0", **one, "p": {"yes": 0.6, "no": 0.2}}
    file = tmp_path / "kept.jsonl"
    file.write_text(json.dumps({"recipe": recipe}) + "\n" + json.dumps(line) + "\n")
    assert command("eval", "score", "judged", file).exit_code == 0
    change(line)
    file.write_text(json.dumps({"recipe": recipe}) + "\n" + json.dumps(line) + "\n")
    done = command("eval", "score", "judged", file)
    assert done.exit_code == 2 and message in " ".join(done.output.split())


def test_a_server_judges_and_its_version_is_in_the_name(asked: tuple, tmp_path: Path) -> None:
    def bright(question: str, image: Image.Image) -> dict[str, float]:
        return {"yes": 0.9, "No": 0.1} if "red" in question else {"Yes": 0.2, "no": 0.7}

    out, kept = tmp_path / "out.json", tmp_path / "kept.jsonl"
    with server(bright) as url:
        words = (*asked, "--server", url, "--server-model", "judge", "--predictions", kept)
        done = command(*words, "--json", out)
        assert done.exit_code == 0, done.output
    ((name, scores),) = report(out)["scores"].items()
    assert name == "compbench_by_judge-2026-01-server"
    value = (0.9 + 2 * 0.2 / 0.9) / 3
    assert scores["vqascore_color_val"]["value"] == pytest.approx(value)
    assert "OPENAI" not in kept.read_text() and "Bearer" not in kept.read_text()
    with server(bright) as url:  # all is there: the judge is only asked who it is
        other = command(*asked, "--server", url, "--server-model", "b", "--predictions", kept)
    assert other.exit_code == 2 and "holds predictions of another recipe" in other.output


def test_broken_images_stop_the_run_before_the_judge_is_asked(asked: tuple, judge: Path) -> None:
    drawn = asked[-1]
    (drawn / "a mat_000001.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    done = command(*asked, "--judge", judge)
    told = " ".join(done.output.split())
    assert done.exit_code == 2 and "1 of 6 images cannot be used, so nothing is scored" in told
    assert "a mat_000001.png" in told


def test_tokenizers_without_spaces_are_told_apart(tmp_path: Path) -> None:
    """GenEval 2 adds up spellings: where two are one token its sum is no probability, or the number
    says that each was counted once.
    """
    folder = write_judge(tmp_path / "no-spaces", bytes_alone=False)
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    row = {"prompt": "a cat", "atom_count": 1, "skills": ["object"], "vqa_list": [["Cat?", "yes"]]}
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    (tmp_path / "images.json").write_text(json.dumps({"a cat": "a.png"}))
    words = (
        "eval", "judged", "geneval2", "--questions", tmp_path / "data.jsonl", "--images",
        tmp_path / "images.json", "--judge", folder, "--json", tmp_path / "out.json",
    )  # fmt: skip
    values = {}
    for flag in ((), ("--each-token-once",)):
        done = command(*words, *flag)
        assert done.exit_code == 0, done.output
        ((name, scores),) = report(tmp_path / "out.json")["scores"].items()
        assert name.endswith("_each_token_once") == bool(flag)
        values[flag] = scores["soft_tifa_gm"]["value"]
    assert values[()] == pytest.approx(2 * values[("--each-token-once",)], rel=1e-4)


def test_options_that_would_be_ignored_are_refused(asked: tuple, judge: Path) -> None:
    for words, message in (
        ((), "give --judge, or --server with --server-model"),
        (("--judge", judge, "--server", "http://x"), "give --judge, or --server"),
        (("--server", "http://x"), "give --judge, or --server"),
        (("--judge", judge, "--cells", 4), "--cells is of dpg"),
        (("--judge", judge, "--each-token-once"), "compbench always does"),
        (("--judge", judge, "--ranks", 2), "give --predictions"),
        (("--judge", judge, "--rank", 1), "ranks are 0 to 0"),
        (("--server", "http://x", "--server-model", "y", "--device", "cuda"), "of --judge"),
    ):
        done = command(*asked, *words)
        assert done.exit_code == 2 and message in done.output, done.output
    done = command("eval", "score", "judged", asked[4], "--data", asked[4])
    assert done.exit_code == 2 and "give files" in done.output
