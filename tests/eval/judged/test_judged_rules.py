"""Soft-TIFA, DPG's parents, TIFA's choices, yes against no: by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unimodal.eval.judged.benchmark import Benchmark
from unimodal.eval.judged.compbench import CompBench
from unimodal.eval.judged.dpg import COLUMNS, Dpg, with_parents
from unimodal.eval.judged.geneval2 import GenEval2, geometric_mean
from unimodal.eval.judged.question import Question
from unimodal.eval.judged.tifa import Tifa

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def picture(path: Path, width: int = 16, height: int = 16, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)


def shown(question: Question) -> Image.Image:
    return question.cut(question.picture.open()[0])


def answered(questions: list[Question], p: list[dict[str, float]]) -> list[dict]:
    return [
        {
            "item": one.item, "cell": one.cell, "number": one.number, "kind": one.kind, "p": some,
            "expected": one.expected, "about": dict(one.about), "question": one.text,
        }
        for one, some in zip(questions, p, strict=True)
    ]  # fmt: skip


def scores(benchmark: Benchmark, questions: list[Question], p: list[dict[str, float]]) -> dict:
    found = benchmark.scores(answered(questions, p))
    return {name: one.value for name, one in found.items()}


@pytest.fixture
def geneval2(tmp_path: Path) -> tuple[Path, Path]:
    lines = [
        {
            "prompt": "two red dogs", "atom_count": 3, "skills": ["object", "count", "attribute"],
            "vqa_list": [["Is there a dog?", "Yes"], ["How many dogs?", "two"], ["Red?", "yes"]],
        },
        {"prompt": "a cat", "atom_count": 1, "skills": ["object"], "vqa_list": [["A cat?", "Yes"]]},
    ]  # fmt: skip
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
    images = {"two red dogs": "a.png", "a cat": "b.png"}
    (tmp_path / "images.json").write_text(json.dumps(images))
    return tmp_path / "data.jsonl", tmp_path / "images.json"


def test_soft_tifa_by_hand(geneval2: tuple[Path, Path]) -> None:
    questions = GenEval2().questions(*geneval2, 1)
    assert [one.text for one in questions][:2] == [
        "Is there a dog? Answer in one word.", "How many dogs? Answer in one word.",
    ]  # fmt: skip
    yes = ("Yes", "yes", " yes", " Yes")
    assert questions[0].answers == {"right": yes} and questions[3].answers == {"right": yes}
    assert questions[1].answers == {"right": ("two", "Two", " two", " Two", "2", " 2")}
    found = scores(GenEval2(), questions, [{"right": p} for p in (0.9, 0.1, 0.5, 0.4)])
    gm, am = (0.9 * 0.1 * 0.5) ** (1 / 3), 0.5
    assert found["soft_tifa_gm"] == pytest.approx((gm + 0.4) / 2)
    assert found["soft_tifa_am"] == pytest.approx((am + 0.4) / 2)
    assert found["am_of_object"] == pytest.approx((0.9 + 0.4) / 2)
    assert found["am_of_count"] == pytest.approx(0.1)
    assert found["gm_of_3_atoms"] == pytest.approx(gm) and found["gm_of_1_atoms"] == 0.4
    assert geometric_mean([0.5, 0.0]) == 0 and geometric_mean([1e-200] * 3) == pytest.approx(1e-200)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"vqa_list": [["A cat?", "no"]]}, "the answer to 'A cat\\?' is 'no', not yes"),
        ({"vqa_list": [["How many cats?", "some"]]}, "'some', no number"),
        ({"atom_count": 2}, "atom_count is 2, but 1 atoms"),
        ({"skills": ["object", "count"]}, "as long as skills"),
        ({"vqa_list": []}, "as long as skills"),
        ({"prompt": "two red dogs"}, "one of them twice"),
    ],
)
def test_a_wrong_file_of_geneval2(geneval2: tuple[Path, Path], change: dict, message: str) -> None:
    lines = [json.loads(line) for line in geneval2[0].read_text().splitlines()]
    lines[1] |= change
    geneval2[0].write_text("".join(json.dumps(one) + "\n" for one in lines))
    with pytest.raises(ValueError, match=message):
        GenEval2().questions(*geneval2, 1)


@pytest.mark.parametrize(
    "images, message",
    [
        ({"a cat": "b.png"}, "lacks images of 1 of 2 prompts, such as 'two red dogs'"),
        ({"a cat": "b.png", "two red dogs": "none.png"}, "there is no such file"),
        ({"a cat": "b.png", "two red dogs": "../x.png"}, "leads out of the folder"),
        ({"a cat": "b.png", "two red dogs": "file:///etc/passwd"}, "1 of 2 images cannot be used"),
        ({"a cat": "b.png", "two red dogs": "a.png", "a": "a.png"}, "has images of others, 1 of 2"),
        ({}, "no JSON object of images"),
    ],
)
def test_images_that_are_missing(geneval2: tuple[Path, Path], images: dict, message: str) -> None:
    geneval2[1].write_text(json.dumps(images))
    with pytest.raises(ValueError, match=message):
        GenEval2().questions(*geneval2, 1)


# A child of 1, its child, a child of both roots: (item, id, parents, tuple).
ROWS = [
    ("p0", 1, "0", "entity - whole (dog)"),
    ("p0", 2, "1", "attribute - color (dog, red)"),
    ("p0", 3, "2", "attribute - color (red, dark)"),
    ("p1", 1, "0", "entity - whole (cat)"),
    ("p1", 2, "0", "entity - whole (mat)"),
    ("p1", 3, "1, 2", "relation - spatial (cat, mat, on)"),
]


@pytest.fixture
def dpg(tmp_path: Path) -> tuple[Path, Path]:
    with (tmp_path / "dpg.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for item, number, parents, words in ROWS:
            values = (item, f"prompt {item}", number, parents, words, f"Q{number}?")
            writer.writerow(dict(zip(COLUMNS, values, strict=True)))
    for item in ("p0", "p1"):
        picture(tmp_path / "drawn" / f"{item}.png", 32, 32)
    return tmp_path / "dpg.csv", tmp_path / "drawn"


def said(*answers: bool) -> list[dict[str, float]]:
    return [{"yes": 0.6, "no": 0.3} if one else {"yes": 0.3, "no": 0.6} for one in answers]


def test_a_child_is_worth_nothing_below_a_parent_that_is() -> None:
    parents = {1: [], 2: [1], 3: [2], 4: [1, 3]}
    assert with_parents({1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}, parents) == [1, 1, 1, 1]
    assert with_parents({1: 0.0, 2: 1.0, 3: 1.0, 4: 1.0}, parents) == [0, 0, 0, 0]
    assert with_parents({1: 1.0, 2: 1.0, 3: 0.0, 4: 1.0}, parents) == [1, 1, 0, 0]


def test_dpg_by_hand(dpg: tuple[Path, Path]) -> None:
    questions = Dpg().questions(*dpg, 1)
    assert questions[0].text == "Q1? Answer yes or no." and questions[2].about["parents"] == [2]
    # p0: no, yes, yes -> 0 0 0. p1: yes, no, yes -> 1 0 0.
    found = scores(Dpg(), questions, said(False, True, True, True, False, True))
    assert found["dpg"] == pytest.approx((0 + 1 / 3) / 2)
    # Without the first row p0 lacks the parent of its second question: left out, as officially.
    assert found["dpg_first_row_skipped"] == pytest.approx(1 / 3)
    assert found["entity"] == found["entity - whole"] == pytest.approx(1 / 2)
    assert found["relation"] == 1 and "attribute" not in found  # raw answers; p0 is left out
    assert found["neither_yes_nor_no"] == 0
    unsure = [{"yes": 0.1, "no": 0.05}, *said(True, True, True, True, True)]
    assert scores(Dpg(), questions, unsure)["neither_yes_nor_no"] == pytest.approx(1 / 6)
    assert scores(Dpg(), questions, unsure)["dpg"] == 1  # a yes is what is likelier than a no


def test_dpg_takes_the_mean_over_the_four_images_of_a_grid(dpg: tuple[Path, Path]) -> None:
    grid = np.zeros((32, 32, 3), np.uint8)
    for cell, value in enumerate((10, 80, 160, 240)):
        grid[16 * (cell // 2) :, 16 * (cell % 2) :][:16, :16] = value
    Image.fromarray(grid).save(dpg[1] / "p0.png")
    questions = Dpg().questions(*dpg, 4)
    assert len(questions) == 4 * len(ROWS)
    first = [one for one in questions if one.item == "p0" and one.number == 1]
    assert [np.asarray(shown(one)).mean() for one in first] == [10, 80, 160, 240]
    assert shown(first[0]).size == (16, 16)
    # Only the last image of p1 fails, in its first question, and with it the third.
    p = said(*(not (q.item == "p1" and q.cell == 3 and q.number == 1) for q in questions))
    found = scores(Dpg(), questions, p)
    assert found["dpg"] == pytest.approx((1 + (3 + 1 / 3) / 4) / 2)
    assert found["entity"] == pytest.approx(1 / 2)  # of the last image alone
    picture(dpg[1] / "p0.png", 31, 32)
    with pytest.raises(ValueError, match="p0.png has 31 x 32 pixels: no grid"):
        shown(Dpg().questions(*dpg, 4)[0])


def test_wrong_files_of_dpg(dpg: tuple[Path, Path]) -> None:
    data, images = dpg
    whole = data.read_text()
    for old, new, message in (
        ("p0,prompt p0,3,2", "p0,prompt p0,3,7", "question 3 of p0 depends on \\[7\\]"),
        ("p0,prompt p0,3,2", "p0,prompt p0,2,1", "two questions of one proposition_id"),
        ("p0,prompt p0,3,2", "p0,prompt p0,x,2", "'x' is no id of a question"),
        ("dependency", "parents", "it has no dependency"),
    ):
        data.write_text(whole.replace(old, new))
        with pytest.raises(ValueError, match=message):
            Dpg().questions(data, images, 1)
    data.write_text(whole)
    (images / "p1.png").unlink()
    with pytest.raises(ValueError, match="lacks images of 1 of 2 prompts, such as 'p1'"):
        Dpg().questions(data, images, 1)


def test_tifa_by_hand(tmp_path: Path) -> None:
    rows = [
        ("c1", "is it a dog?", ["yes", "no"], "yes", "animal"),
        ("c1", "who is there?", ["cat", "dog", "cow"], "dog", "animal"),
        ("c2", "what colour?", ["dark red", "dark blue"], "dark blue", "color"),
    ]
    names = ("id", "question", "choices", "answer", "element_type", "caption")
    listed = [dict(zip(names, (*one, "a caption"), strict=True)) for one in rows]
    (tmp_path / "tifa.json").write_text(json.dumps(listed))
    for item in ("c1", "c2"):
        picture(tmp_path / "drawn" / f"{item}.jpg")
    questions = Tifa().questions(tmp_path / "tifa.json", tmp_path / "drawn", 1)
    assert questions[0].text == "is it a dog? Answer yes or no."
    assert questions[1].text == (
        "who is there?\nA. cat\nB. dog\nC. cow\nAnswer with the option's letter."
    )
    assert questions[2].answers == {"dark red": ("A", " A"), "dark blue": ("B", " B")}
    p = [
        {"yes": 0.2, "no": 0.1}, {"cat": 0.4, "dog": 0.3, "cow": 0.1},
        {"dark red": 0.0, "dark blue": 0.1},
    ]  # fmt: skip
    assert scores(Tifa(), questions, p) == {"tifa": 0.75, "animal": 0.5, "color": 1.0}
    p[2] = {"dark red": 0.1, "dark blue": 0.1}  # no answer is likelier: not right
    assert scores(Tifa(), questions, p)["tifa"] == 0.25
    listed[1]["answer"] = "horse"
    (tmp_path / "tifa.json").write_text(json.dumps(listed))
    with pytest.raises(ValueError, match="the answer 'horse' is none of the choices"):
        Tifa().questions(tmp_path / "tifa.json", tmp_path / "drawn", 1)


@pytest.mark.skipif(not DATA.exists(), reason="needs shared/data beside the repository")
def test_official_files_are_read(tmp_path: Path) -> None:
    sample = DATA / "tifa" / "sample_question_answers.json"
    rows = json.loads(sample.read_text())
    for item in {row["id"] for row in rows}:
        picture(tmp_path / "tifa" / f"{item}.png")
    assert len(Tifa().questions(sample, tmp_path / "tifa", 1)) == len(rows) > 5
    for name in ("color", "shape", "texture", "spatial", "non_spatial", "complex"):
        file = DATA / "t2i_compbench" / f"{name}_val.txt"
        prompts = [line for line in file.read_text().splitlines() if line.strip()]
        for prompt in prompts:
            (tmp_path / name).mkdir(exist_ok=True)
            tiny = tmp_path / "tiny.png"
            if not tiny.exists():
                picture(tiny)
            (tmp_path / name / f"{prompt.strip()}_000000.png").hardlink_to(tiny)
        questions = CompBench().questions(file, tmp_path / name, 1)
        assert len(questions) == 300 and questions[0].kind == f"{name}_val"


def test_yes_against_no(tmp_path: Path) -> None:
    (tmp_path / "color_val.txt").write_text("a red dog\na blue cat\n")
    for prompt in ("a red dog", "a blue cat"):
        for sample in range(2):
            picture(tmp_path / "drawn" / f"{prompt}_{sample:06d}.png")
    data = tmp_path / "color_val.txt"
    questions = CompBench().questions(data, tmp_path / "drawn", 1)
    assert questions[0].text == 'Does this figure show "a red dog"? Please answer yes or no.'
    p = [{"yes": 0.3, "no": 0.1}, {"yes": 0.0, "no": 0.1}, *[{"yes": 0.5, "no": 0.5}] * 2]
    assert scores(CompBench(), questions, p) == {"vqascore_color_val": (0.75 + 0 + 0.5 + 0.5) / 4}
    with pytest.raises(ValueError, match="neither yes nor no"):
        scores(CompBench(), questions, [{"yes": 0.0, "no": 0.0}] * 4)
    (tmp_path / "drawn" / "a red dog_000001.png").unlink()
    with pytest.raises(ValueError, match="1 images of 'a red dog', and 2 of others"):
        CompBench().questions(data, tmp_path / "drawn", 1)
