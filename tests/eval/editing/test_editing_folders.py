"""Benchmarks of edits: files read, folders drawn, read back and found incomplete, scenes judged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import vqa_files
from click.testing import CliRunner, Result
from PIL import Image as PILImage

import unimodal
from unimodal.command import main
from unimodal.data.scenes.world import render
from unimodal.eval.editing.edits import Edit, read_edits
from unimodal.eval.editing.folder import EDITED, read_folder, result_file
from unimodal.eval.editing.scenes import SceneEdits, read_scene_edits, write_scene_edits
from unimodal.eval.vqa.source import Source
from unimodal.model import Model

GEDIT = ("subject-add", "tone_transfer")


@pytest.fixture
def small(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The command's model: it draws at once what nobody asked for."""
    monkeypatch.setattr(unimodal, "load", lambda *_: tiny_model)
    return tiny_model


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["eval", "editing", *map(str, words)])


def imgedit(folder: Path, **items: dict[str, str]) -> Path:
    """Two edits of two images as ImgEdit publishes them, or the items given."""
    vqa_files.write_images(folder, "animal/1.jpg", "style/2.jpg")
    whole = items or {
        "1082": {"id": "animal/1.jpg", "prompt": "Smooth the shell.", "edit_type": "adjust"},
        "673": {"id": "style/2.jpg", "prompt": "Make it ukiyo-e.", "edit_type": "style"},
    }
    return vqa_files.write_json(folder / "basic_edit.json", whole)


def gedit(folder: Path) -> Path:
    """Two keys in two languages, with paths of their images."""
    vqa_files.write_images(folder, "a.png", "b.png")
    rows = [
        {
            "task_type": kind, "key": key, "instruction": f"{key}, {language}",
            "instruction_language": language, "input_image": f"{key}.png",
            "Intersection_exist": True,
        }
        for key, kind in zip("ab", GEDIT, strict=True)
        for language in ("en", "cn")
    ]  # fmt: skip
    return vqa_files.write_json(folder / "gedit_edit.json", rows)


def files_of(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


# --- official layouts ---------------------------------------------------------------------------


def test_imgedit_is_read_drawn_and_read_back(small: Model, tmp_path: Path):
    edits, out = imgedit(tmp_path / "data"), tmp_path / "out"
    found = read_edits(Source(edits, edits.parent), "imgedit")
    assert [(one.key, one.kind, one.image) for one in found] == [
        ("1082", "adjust", "animal/1.jpg"),
        ("673", "style", "style/2.jpg"),
    ]
    assert run("draw", out, "--edits", edits).exit_code == 0
    assert files_of(out) == {"1082.png", "673.png", EDITED}
    read = read_folder(out, found)
    assert read.recipe["model"] == small.hash and read.recipe["layout"] == "imgedit"
    assert [image.shape for _, image in read.images()] == [(*small.canvas[::-1], 3)] * 2
    assert run("check", out, "--edits", edits).exit_code == 0


def test_gedit_has_a_folder_for_each_type_and_language(small: Model, tmp_path: Path):
    edits, out = gedit(tmp_path / "data"), tmp_path / "out"
    done = run("draw", out, "--edits", edits, "--layout", "gedit", "--language", "en")
    assert done.exit_code == 0, done.output
    places = [f"fullset/{kind}/en/{key}" for kind, key in zip(GEDIT, "ab", strict=True)]
    assert files_of(out) == {f"{p}{end}.png" for p in places for end in ("", "_SRCIMG")} | {EDITED}
    before = np.asarray(PILImage.open(out / f"{places[1]}_SRCIMG.png"))
    assert (before == np.asarray(PILImage.open(edits.parent / "b.png"))).all(), "in its own size"
    words = ("check", out, "--edits", edits, "--layout", "gedit")
    assert run(*words, "--language", "en").exit_code == 0
    assert "4 of 8 images are missing: fullset/subject-add/cn/a.png" in run(*words).output


def test_gedit_is_read_from_its_parquet_files(small: Model, tmp_path: Path):
    """Images as the dataset's column holds them; `data` names none outside."""
    arrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow (extra hf)")
    parquet = pytest.importorskip("pyarrow.parquet", reason="parquet needs pyarrow (extra hf)")
    rows = json.loads(gedit(tmp_path / "json").read_text())
    for row in rows:
        content = (tmp_path / "json" / row["input_image"]).read_bytes()
        row["input_image"] = {"bytes": content, "path": "../../x.png"}
    data = tmp_path / "data"
    data.mkdir()
    parquet.write_table(arrow.Table.from_pylist(rows), data / "train-00000-of-00001.parquet")
    words = (tmp_path / "out", "--layout", "gedit", "--edits", data)
    assert run("draw", *words).exit_code == 0 and run("check", *words).exit_code == 0
    assert len(files_of(tmp_path / "out")) == 9


def test_drawing_goes_on_where_it_stopped(small: Model, tmp_path: Path):
    """A result that is gone is drawn again, the same; whatever the batch."""
    edits, out = imgedit(tmp_path / "data"), tmp_path / "out"
    words = ("draw", out, "--edits", edits)
    assert run(*words).exit_code == 0
    whole = {name: (out / name).read_bytes() for name in files_of(out)}
    (out / "673.png").unlink()
    assert "1 of 2 images are missing: 673.png" in run("check", out, "--edits", edits).output
    assert run(*words, "--batch-size", 1).exit_code == 0
    assert {name: (out / name).read_bytes() for name in files_of(out)} == whole
    assert "another recipe (seed" in run(*words, "--seed", 5).output
    assert {name: (out / name).read_bytes() for name in files_of(out)} == whole
    (out / EDITED).unlink()
    assert f"1082.png was not drawn here, for there is no {out / EDITED}" in run(*words).output
    del whole[EDITED]
    assert {name: (out / name).read_bytes() for name in files_of(out)} == whole


def test_all_that_is_wrong_with_a_folder_is_named(tmp_path: Path):
    edits, out = imgedit(tmp_path / "data"), tmp_path / "out"
    vqa_files.write_images(out, "1082.png", "999.png")
    told = run("check", out, "--edits", edits)
    assert told.exit_code != 0 and len(told.output.strip().splitlines()) == 1
    assert "1 of 2 images are missing: 673.png" in told.output
    assert "1 images are of no edit that was asked for: 999.png" in told.output
    (out / "999.png").rename(out / "673.png")
    assert run("check", out, "--edits", edits).exit_code == 0
    (out / "673.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert "1 of 2 images are broken: 673.png" in run("check", out, "--edits", edits).output


@pytest.mark.parametrize(
    ("key", "fields", "told"),
    [
        ("../up", {}, "the key '../up' is to be the name of a file"),
        ("a/b", {}, "the key 'a/b'"),
        (".hidden", {}, "the key '.hidden'"),
        ("a_SRCIMG", {}, "the key 'a_SRCIMG'"),
        ("k", {"edit_type": "../x"}, "the edit_type '../x'"),
        ("k", {"prompt": "  "}, "prompt is empty"),
        ("k", {"prompt": float("nan")}, "holds NaN"),
        ("k", {"prompt": None}, "has no prompt"),
        ("k", {"id": "../../x.png"}, "leads out of the folder"),
        ("k", {"id": "/etc/passwd"}, "leads out of the folder"),
        ("k", {"id": "file:///etc/passwd"}, "nothing is fetched"),
        ("k", {"id": "http://169.254.169.254/latest"}, "nothing is fetched"),
        ("k", {"id": "animal/none.jpg"}, "there is no such file"),
        ("k", {"id": "basic_edit.json"}, "1 of 1 images cannot be used"),
    ],
)
def test_bad_files_are_one_error_before_anything_is_drawn(
    small: Model, tmp_path: Path, key: str, fields: dict, told: str
):
    good = {"id": "animal/1.jpg", "prompt": "Smooth it.", "edit_type": "adjust"}
    edits, out = imgedit(tmp_path / "data", **{key: good | fields}), tmp_path / "out"
    done = run("draw", out, "--edits", edits)
    assert done.exit_code != 0 and told in done.output, done.output
    assert len(done.output.strip().splitlines()) == 1 and not out.exists()


def test_what_is_no_file_of_edits_is_refused(tmp_path: Path):
    edits = imgedit(tmp_path / "data")
    vqa_files.write_images(tmp_path / "out", "1082.png", "673.png")
    for content, told in (
        (b"[]", "is no object of"), (b"{}", "asks for no edits"), (b'{"a": 3}', "is no object of"),
        (b'{"a": "\xff"}', "is no UTF-8"), (b'{"a": ', "is no JSON"),
    ):  # fmt: skip
        edits.write_bytes(content)
        done = run("check", tmp_path / "out", "--edits", edits)
        assert done.exit_code != 0 and told in done.output
    rows = json.loads(gedit(tmp_path / "gedit").read_text())
    twice = vqa_files.write_json(tmp_path / "gedit/gedit_edit.json", [*rows, rows[0]])
    with pytest.raises(ValueError, match="fullset/subject-add/en/a is there twice"):
        read_edits(Source(twice, twice.parent), "gedit")
    with pytest.raises(ValueError, match="ImgEdit's instructions have none"):
        read_edits(Source(edits, edits.parent), "imgedit", "en")


# --- scenes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    assert write_scene_edits(folder, SceneEdits(1_000_003, 3, 64)) == 18
    return folder


def drawn(scenes: Path, out: Path, after: bool) -> tuple[list[Edit], Path]:
    """Results: the scenes that the edits lead to, or the ones before as they were."""
    edits, requests = read_scene_edits(scenes)
    out.mkdir()
    for edit, request in zip(edits, requests, strict=True):
        scene = request.ideal if after else request.shown
        PILImage.fromarray(render(scene, 64)).save(result_file(out, edit))
    return edits, out


def test_scenes_are_judged_exactly(scenes: Path, tmp_path: Path):
    """What an edit leads to is right, and an image left as it was is wrong, every one."""
    for after, worth in ((True, 1.0), (False, 0.0)):
        _, out = drawn(scenes, tmp_path / str(after), after)
        words = ("score", out, "--edits", scenes, "--edited-by", "hand")
        file = tmp_path / "report.json"
        done = run(*words, "--json", file, "--contact-sheet", tmp_path / "sheet.png")
        assert done.exit_code == 0, done.output
        report = json.loads(file.read_text())
        scores = report["scores"]["editing_by_scenes"]
        assert [one["value"] for one in scores.values()] == pytest.approx([worth] * 7)
        assert scores["overall"]["n"] == 18
        assert report["recipe"]["model"] == "hand" and len(report["recipe"]["results"]) == 64


def test_an_object_that_was_touched_beside_the_edit_is_told(scenes: Path, tmp_path: Path):
    edits, out = drawn(scenes, tmp_path / "out", True)
    _, requests = read_scene_edits(scenes)
    at = next(k for k, one in enumerate(requests) if len(one.ideal.objects) > 1)
    scene = requests[at].ideal
    fewer = type(scene)(scene.background, scene.objects[1:])
    PILImage.fromarray(render(fewer, 64)).save(result_file(out, edits[at]))
    file = tmp_path / "report.json"
    assert run("score", out, "--edits", scenes, "--json", file).exit_code == 0
    wrong = [one for one in json.loads(file.read_text())["predictions"] if not one["right"]]
    assert [one["id"] for one in wrong] == [edits[at].key] and "objects instead" in wrong[0][
        "reason"
    ]


def test_half_a_folder_has_no_score(scenes: Path, tmp_path: Path):
    edits, out = drawn(scenes, tmp_path / "out", True)
    result_file(out, edits[4]).unlink()
    done = run("score", out, "--edits", scenes)
    assert done.exit_code != 0 and "1 of 18 images are missing: 000004.png" in done.output


def test_edits_that_were_changed_are_refused(scenes: Path, tmp_path: Path):
    copy = Path(shutil.copytree(scenes, tmp_path / "copy"))
    whole = json.loads((copy / "edits.json").read_text())
    whole["000000"]["prompt"] = "leave it"
    vqa_files.write_json(copy / "edits.json", whole)
    with pytest.raises(ValueError, match="was changed, or made by another version"):
        read_scene_edits(copy)
    vqa_files.write_json(copy / "scenes.json", {"seed": 1.5, "samples": 3, "canvas": 64})
    with pytest.raises(ValueError, match="are not whole numbers"):
        read_scene_edits(copy)
    vqa_files.write_json(copy / "scenes.json", {"seed": 1, "samples": 3, "canvas": 9})
    with pytest.raises(ValueError, match="canvas 9: 64 to 512 pixels"):
        read_scene_edits(copy)
