"""`eval draw`: folders that `eval judged` reads, whole, resumed, and judged by the real server."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import unimodal
from unimodal.command import main
from unimodal.document import Document, Text
from unimodal.eval.answerers.endpoint import Endpoint
from unimodal.eval.geneval.drawing import noise_seed
from unimodal.eval.geneval.folder import drawn_recipe
from unimodal.eval.judged.benchmarks import benchmark_of
from unimodal.eval.judged.drawing import draw
from unimodal.eval.judged.evaluation import evaluate
from unimodal.eval.judged.server_judge import ServerJudge
from unimodal.generation import generate
from unimodal.model import Model

TEXTS = ("a red circle", "two blue stars")
COLUMNS = "item_id text proposition_id dependency tuple question_natural_language".split()
CELLS = {"geneval2": 1, "dpg": 4, "tifa": 1, "compbench": 1}


def official(name: str, folder: Path) -> Path:
    """A file of the benchmark's form about TEXTS."""
    file = folder / f"{name}_questions"
    if name == "geneval2":
        atom = [["Is there a circle?", "Yes"]]
        rows = [{"prompt": t, "atom_count": 1, "vqa_list": atom, "skills": ["object"]}
                for t in TEXTS]  # fmt: skip
        file.write_text("\n".join(map(json.dumps, rows)))
    elif name == "dpg":
        with file.open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(COLUMNS)
            for item, text in zip(("0", "shape_1"), TEXTS, strict=True):
                table.writerow([item, text, 1, "0", "entity - whole (it)", "Is it there?"])
    elif name == "tifa":
        rows = [{"id": f"t_{at}", "caption": text, "question": "is it red?", "answer": "yes",
                 "choices": ["yes", "no"], "element_type": "color"}
                for at, text in enumerate(TEXTS)]  # fmt: skip
        file.write_text(json.dumps(rows))
    else:
        file.write_text("\n".join(TEXTS))
    return file


def drawn(model: Model, name: str, folder: Path, samples: int = 1, seed: int = 3) -> Path:
    benchmark = benchmark_of(name)
    draw(model, benchmark, official(name, folder), folder / name, samples, CELLS[name], seed)
    return folder / name / (benchmark.index or "")


@pytest.mark.parametrize("name", CELLS)
def test_what_is_drawn_is_what_the_judge_looks_for(
    tiny_model: Model, tmp_path: Path, name: str
) -> None:
    benchmark = benchmark_of(name)
    samples = 2 if name == "compbench" else 1
    images = drawn(tiny_model, name, tmp_path, samples)
    questions = benchmark.questions(official(name, tmp_path), images, CELLS[name])
    assert len({(one.picture.name, one.cell) for one in questions}) == 2 * samples * CELLS[name]
    for number, text in enumerate(TEXTS):
        for at in range(samples * CELLS[name]):
            sampling = tiny_model.sampling.__class__(
                **{**vars(tiny_model.sampling), "seed": noise_seed(3, number, at)}
            )
            document = Document((Text(text, role="user"),))
            ((part,),) = generate(tiny_model, [document], sampling, "image")
            (expected,) = tiny_model.codec.decode([part])
            (asked,) = (one for one in questions if (one.prompt, one.cell) == (text, at))
            found = np.asarray(asked.cut(asked.picture.open()[0]))
            assert np.array_equal(found, expected.pixels)
    recipe = drawn_recipe(images)
    assert recipe["model"] == tiny_model.hash and recipe["seed"] == 3
    assert recipe["benchmark"] == name and recipe["samples_per_prompt"] == samples


def test_it_goes_on_where_it_stopped(tiny_model: Model, tmp_path: Path) -> None:
    folder = drawn(tiny_model, "dpg", tmp_path)
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert Image.open(folder / "shape_1.png").size == tuple(2 * one for one in tiny_model.canvas)
    (folder / "shape_1.png").unlink()
    kept = (folder / "0.png").stat().st_mtime_ns
    lines = (folder / "drawn.jsonl").read_bytes()
    (folder / "drawn.jsonl").write_bytes(lines[:-40])  # killed in the middle of a line
    drawn(tiny_model, "dpg", tmp_path)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole
    assert (folder / "0.png").stat().st_mtime_ns == kept
    with pytest.raises(ValueError, match="another recipe .seed 3, not 4"):
        drawn(tiny_model, "dpg", tmp_path, seed=4)
    (folder / "drawn.jsonl").unlink()
    with pytest.raises(ValueError, match="0.png was not drawn here, for there is no .*drawn.jsonl"):
        drawn(tiny_model, "dpg", tmp_path, seed=4)
    assert {file.name: file.read_bytes() for file in folder.glob("*.png")}.items() <= whole.items()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("compbench", "a cat and/or a dog", "is no name of a file"),
        ("compbench", "very " * 60 + "long", "is no name of a file"),
        ("tifa", json.dumps([{"id": "../../x", "caption": "a cat"}]), "is no name of a file"),
        ("tifa", json.dumps([{"id": "a", "caption": "b"}, {"id": "a", "caption": "c"}]),
         "a has two texts"),
        ("dpg", "item_id,text\n", "is no dpg_bench.csv"),
        ("geneval2", "", "holds no prompts"),
    ],
)  # fmt: skip
def test_prompts_that_name_no_file_are_refused_before_anything_is_drawn(
    tiny_model: Model, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(ValueError, match=message):
        draw(tiny_model, benchmark_of(name), tmp_path / "file", tmp_path / "out", 1, 1, 0)
    assert not (tmp_path / "out").exists()


def test_options_of_other_benchmarks_are_refused(tmp_path: Path) -> None:
    for words, message in (
        (("tifa", "--cells", "4"), "--cells is of dpg"),
        (("geneval2", "--samples", "2"), "geneval2 has one file of each prompt"),
    ):
        file = official(words[0], tmp_path)
        done = CliRunner().invoke(
            main,
            ["eval", "draw", words[0], str(tmp_path / "out"), "--prompts", str(file), *words[1:]],
        )
        assert done.exit_code == 2 and message in " ".join(done.output.split())


def test_dpg_draws_its_folder_of_prompts(tmp_path: Path) -> None:
    (tmp_path / "10.txt").write_text("ten\n")
    (tmp_path / "9.txt").write_text("nine")
    assert benchmark_of("dpg").prompts(tmp_path) == {"9": "nine", "10": "ten"}
    (tmp_path / "11.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="11.txt is no UTF-8"):
        benchmark_of("dpg").prompts(tmp_path)


def test_from_drawing_to_score_with_the_server_as_judge(tiny_model: Model, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    from api_server import serving

    with serving(unimodal.load(), requests_a_minute=100_000) as served:
        for name in ("geneval2", "tifa"):
            benchmark, images = benchmark_of(name), drawn(tiny_model, name, tmp_path)
            questions = benchmark.questions(official(name, tmp_path), images, CELLS[name])
            judge = ServerJudge(Endpoint(served.url, None), "tiny", 1000)
            how = drawn_recipe(images, "drawing_")
            report = evaluate(judge, benchmark, questions, True, drawing=how)
            assert report is not None and report["recipe"]["drawing_model"] == tiny_model.hash
            p = [one["p"] for one in report["predictions"]]
            assert len(p) == len(questions) and all(0 < min(one.values()) for one in p)
            ((score, found),) = report["scores"].items()
            assert score.startswith(f"{name}_by_tiny-server")
            assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found.values()
                       if one.low is not None)  # fmt: skip
