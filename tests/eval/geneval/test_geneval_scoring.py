"""Detections in files: scored whole or refused, and what the numbers are called."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from unimodal.command import main
from unimodal.eval.geneval.detector import read_detections
from unimodal.eval.geneval.prompts import TAGS, Prompt, Wanted, read_prompts
from unimodal.eval.geneval.rules import Rules
from unimodal.eval.geneval.scoring import report_of
from unimodal.eval.intervals import clustered_share, proportion

GENEVAL = Path(__file__).resolve().parents[3] / "../shared/data/geneval"
CAT, DOG = (Prompt("single_object", (Wanted(n, 1),), f"a photo of a {n}") for n in ("cat", "dog"))
PAIR = Prompt("two_object", (Wanted("cat", 1), Wanted("dog", 1)), "a photo of a cat and a dog")


def granted(prompt: Prompt) -> dict:
    """What a perfect image of a prompt would be detected as: objects placed by the prompt."""
    spots = {"left of": (0, 200), "right of": (400, 200), "above": (200, 0), "below": (200, 400)}
    boxes, colours = {}, {}
    for wanted in prompt.include:
        x, y = spots[wanted.position[0]] if wanted.position else (200, 200)
        rows = [[x + 60 * k, y, x + 60 * k + 50, y + 50, 0.95] for k in range(wanted.count)]
        boxes[wanted.name] = rows
        colours[wanted.name] = [wanted.colour or "red"] * wanted.count
    return {"boxes": boxes, "colours": colours}


def record(file: Path, prompts: list[Prompt], samples: int = 1, **recipe: object) -> list[dict]:
    """Write detections of perfect images; return the lines."""
    classes = sorted({name for prompt in prompts for name in prompt.names})
    head = {
        "detector": "ours", "classes": classes, "num_prompts": len(prompts),
        "samples_per_prompt": samples, **recipe,
    }  # fmt: skip
    found = [
        {"id": f"{n:05d}/{s:04d}", "metadata": prompt.json(), **granted(prompt)}
        for n, prompt in enumerate(prompts)
        for s in range(samples)
    ]
    write(file, head, found)
    return found


def write(file: Path, head: dict, found: list[dict]) -> None:
    file.write_text("".join(f"{json.dumps(one)}\n" for one in [{"recipe": head}, *found]))


def run(*words: object) -> str:
    """What a command prints; it must succeed."""
    done = CliRunner().invoke(main, ["eval", "geneval", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.skipif(not GENEVAL.exists(), reason="needs shared/data/geneval beside the repository")
def test_the_official_prompts_with_recorded_detections(tmp_path):
    official = GENEVAL / "evaluation_metadata.jsonl"
    file, out = tmp_path / "recorded.jsonl", tmp_path / "scores.json"
    lines = record(file, read_prompts(official))
    run("score", file, "--prompts", official, "--json", out)
    scores = json.loads(out.read_text())["scores"]["geneval_by_ours"]
    assert scores.pop("overall")["value"] == pytest.approx(1)
    assert all(score["value"] == 1 for score in scores.values())
    assert {tag: score["n"] for tag, score in scores.items()} == dict(
        zip(TAGS, (80, 99, 80, 94, 100, 100), strict=True)
    )
    recipe = json.loads(file.read_text().partition("\n")[0])["recipe"]
    for line in lines[:40] + lines[100:]:  # half of the single objects, all but 20 of the pairs
        line["boxes"], line["colours"] = {}, {}
    write(file, recipe, lines)
    run("score", file, "--prompts", official, "--json", out)
    scores = json.loads(out.read_text())["scores"]["geneval_by_ours"]
    found = [scores[tag]["value"] for tag in ("single_object", "two_object", "overall")]
    assert found == pytest.approx([1 / 2, 20 / 99, (1 / 2 + 20 / 99) / 6])


def test_the_overall_score_is_the_mean_of_tasks_and_best_of_n_stands_apart(tmp_path):
    file = tmp_path / "recorded.jsonl"
    lines = record(file, [CAT, DOG, PAIR], samples=2)
    recipe = json.loads(file.read_text().partition("\n")[0])["recipe"]
    for number in (0, 2, 3, 4):  # one image of the cat's, both of the dog's, one of the pair's
        lines[number]["boxes"], lines[number]["colours"] = {}, {}
    write(file, recipe, lines)
    report = report_of(read_detections(file))
    one, best = report["scores"]["geneval_by_ours"], report["scores"]["geneval_by_ours_best_of_2"]
    assert (one["single_object"].value, one["single_object"].n) == (1 / 4, 4)
    assert one["two_object"].value == 1 / 2
    assert one["overall"].value == pytest.approx(3 / 8)
    assert (best["single_object"].value, best["single_object"].n) == (1 / 2, 2)
    assert best["overall"].value == pytest.approx(3 / 4)
    assert report["predictions"][0]["reason"] == "expected cat>=1, found 0"


def test_intervals_are_clustered_by_prompt():
    alike = clustered_share([[True] * 4] * 10 + [[False] * 4] * 10)
    apart = clustered_share([[True, False] * 2] * 20)
    alone = proportion(10, 20)
    assert (alike.low, alike.high) == pytest.approx((alone.low, alone.high))
    assert (apart.low, apart.high) == pytest.approx(
        (proportion(40, 80).low, proportion(40, 80).high)
    )
    assert alike.n == apart.n == 80
    single = clustered_share([[k < 7] for k in range(20)])
    assert (single.low, single.high) == pytest.approx(
        (proportion(7, 20).low, proportion(7, 20).high)
    )
    assert clustered_share([[True] * 4] * 5).low == pytest.approx(proportion(5, 5).low)
    assert clustered_share([]).value is None


def test_a_number_names_its_detector_and_its_rewriter_and_keeps_its_recipe(tmp_path):
    file, markdown = tmp_path / "recorded.jsonl", tmp_path / "scores.md"
    drawn = {"model": "0123456789abcdef" * 4, "seed": 7, "guidance": 3.5, "precision": "bfloat16",
             "resolution": "512x512", "steps": 64}  # fmt: skip
    record(file, [CAT, DOG], rewriter="llama", **drawn)
    run("score", file, "--markdown", markdown)
    told = markdown.read_text()
    for words in (
        "geneval by ours prompts by llama / single object", "model 0123456789ab", "seed 7",
        "guidance 3.5", "precision bfloat16", "resolution 512x512", "steps 64", "rewriter llama",
        "detector ours", "confidence 0.3", "counting confidence 0.9", "most objects 16",
        "most overlap 1", "position threshold 0.1", "scorer geneval af4902f",
        "samples per prompt 1", "best of 1", "prompts ",
    ):  # fmt: skip
        assert words in told, words
    record(file, [CAT, DOG])
    run("score", file, "--markdown", markdown)
    told = markdown.read_text()
    assert "seed unknown" in told and "rewriter raw prompts" in told and "by llama" not in told


def test_thresholds_are_those_of_the_result(tmp_path):
    file = tmp_path / "recorded.jsonl"
    record(file, [CAT])
    report = report_of(read_detections(file), Rules(confidence=0.96))
    assert report["scores"]["geneval_by_ours"]["overall"].value == 0
    assert report["recipe"]["confidence"] == 0.96
    with pytest.raises(ValueError, match="confidence 3: give 0 to 1"):
        report_of(read_detections(file), Rules(confidence=3))


def change(lines: list[dict], head: dict, how: str) -> None:
    """Make the detections wrong in one way."""
    if how == "half":
        lines.pop()
    elif how == "id":
        lines[1]["id"] = "00007/0000"
    elif how == "nan":
        lines[0]["boxes"]["cat"][0][4] = float("nan")
    elif how in ("text", "truth"):
        lines[0]["boxes"]["cat"][0][4] = {"text": "0.9", "truth": True}[how]
    elif how == "too many":
        head["num_prompts"] = 10**12
    elif how == "class":
        lines[0]["boxes"]["unicorn"] = [[0, 0, 1, 1, 0.5]]
    elif how == "prompt's class":
        head["classes"] = ["cat"]
    elif how == "numbers":
        head["classes"] = [1, 2]
    elif how == "no colours":
        lines[0]["colours"] = None
    elif how == "a colour":
        lines[0]["colours"]["cat"] = "red"
    elif how == "note":
        lines[0]["note"] = float("nan")
    elif how == "no note":
        lines[0]["note"] = None
    elif how == "other prompt":
        lines[1]["metadata"] = DOG.json()
    elif how == "no boxes":
        del lines[0]["boxes"]
    elif how in head:
        del head[how]
    else:
        raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("half", "lacks 1 of 4 images, 00001/0001 first: it is half-finished"),
        ("id", "has an image '00007/0000', which its recipe does not know"),
        ("nan", "line 2: it holds NaN"),
        ("text", "a box is .x1, y1, x2, y2, score"),
        ("truth", "a box is .x1, y1, x2, y2, score"),
        ("too many", "lacks 1999999999996 of 2000000000000 images, 00002/0000 first"),
        ("class", "'unicorn' is none of the detector's classes"),
        ("prompt's class", "asks for 'dog', which the detector ours does not know"),
        ("numbers", "classes of its recipe are names"),
        ("no colours", "colours are lists by class"),
        ("a colour", "00000/0000: the colours of cat are a list"),
        ("note", "line 2: it holds NaN"),
        ("no note", "a note is text"),
        ("other prompt", "00000/0001 is of 'a photo of a dog', not of 'a photo of a cat'"),
        ("no boxes", "has no boxes or no metadata"),
        ("detector", "its recipe has no detector"),
        ("classes", "its recipe has no classes"),
        ("num_prompts", "num_prompts of its recipe is None"),
        ("samples_per_prompt", "samples_per_prompt of its recipe is None"),
    ],
)
def test_detections_that_are_not_whole_are_refused(tmp_path, how, told):
    file = tmp_path / "recorded.jsonl"
    lines = record(file, [CAT, DOG], samples=2)
    head = json.loads(file.read_text().partition("\n")[0])["recipe"]
    change(lines, head, how)
    write(file, head, lines)
    with pytest.raises(ValueError, match=told):
        read_detections(file)


@pytest.mark.parametrize("key", ["boxes", "cat"])
def test_a_class_that_is_there_twice_is_refused(tmp_path, key):
    file = tmp_path / "recorded.jsonl"
    record(file, [CAT])
    file.write_text(file.read_text().replace(f'"{key}": ', f'"{key}": [], "{key}": ', 1))
    with pytest.raises(ValueError, match=f"line 2: it holds the key '{key}' twice"):
        read_detections(file)


def test_detections_of_other_prompts_are_refused(tmp_path):
    file = tmp_path / "recorded.jsonl"
    record(file, [CAT, DOG])
    with pytest.raises(ValueError, match="num_prompts of its recipe is 2, not the 1 of --prompts"):
        read_detections(file, [CAT])
    with pytest.raises(ValueError, match="00000/0000 is of 'a photo of a cat', not of 'a photo of"):
        read_detections(file, [DOG, CAT])
    assert list(read_detections(file, [CAT, DOG]).images) == ["00000/0000", "00001/0000"]


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"no json\n", b"{}\n", b'{"recipe": 3}\n', b"\xff\n"]
)
def test_a_file_that_holds_no_detections(tmp_path, content):
    file = tmp_path / "recorded.jsonl"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="no file of predictions"):
        read_detections(file)


def test_a_colour_that_was_not_looked_at_is_told_with_its_image(tmp_path):
    file = tmp_path / "recorded.jsonl"
    red = Prompt("colors", (Wanted("cat", 1, "red"),), "a photo of a red cat")
    found = record(file, [CAT, red])
    del found[1]["colours"]
    head = json.loads(file.read_text().partition("\n")[0])["recipe"]
    write(file, head, found)
    with pytest.raises(ValueError, match="00001/0000: the colour of cat .* detect again"):
        report_of(read_detections(file))


def test_a_line_that_was_cut_is_an_image_that_is_missing(tmp_path):
    file = tmp_path / "recorded.jsonl"
    record(file, [CAT, DOG])
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match="lacks 1 of 2 images, 00001/0000 first"):
        read_detections(file)
