"""What is read of each benchmark's official files, and what is refused."""

import json
from pathlib import Path

import pytest
import vqa_files
from vqa_files import TEN, png, write_images, write_json, write_lines

from unimodal.data.shards import ShardWriter
from unimodal.data.sizes import ImageRule
from unimodal.eval.vqa.item import Item
from unimodal.eval.vqa.pictures import Pictures, name_of
from unimodal.eval.vqa.source import Source
from unimodal.eval.vqa.task import check_items
from unimodal.eval.vqa.tasks import NAMES, task_of

POPE = Path(__file__).resolve().parents[3] / "../shared/data/pope"
NLVR = Path(__file__).resolve().parents[3] / "../shared/data/nlvr"
RULE = ImageRule(target_pixels=256, multiple=8, max_aspect_ratio=4.0)


def read(name: str, path: Path, images: Path | None = None, split: str | None = None) -> list[Item]:
    """The items of a task, whose images are all there."""
    folder = images or (path if path.is_dir() else path.parent)
    found = task_of(name).items(Source(path, folder, split))
    check_items(found)
    Pictures(folder, RULE).check(found)
    return found


# --- official files -----------------------------------------------------------------------------


def test_vqav2(tmp_path):
    first, second, third = read("vqav2", vqa_files.vqav2(tmp_path))
    assert (first.id, first.question, first.kind) == ("70", "What colour is it?", "other")
    assert first.images == ("COCO_val2014_000000000007.jpg",)
    assert first.expected == {"answers": TEN, "question_type": "what"}
    assert first.group == second.group == "7" and third.group == "8"
    assert task_of("vqav2").constant(first.expected) == "red"


def test_gqa(tmp_path):
    first, second = read("gqa", vqa_files.gqa(tmp_path))
    assert (first.id, first.kind, second.kind) == ("05515938", "open", "binary")
    assert first.expected == {"answer": "pipe", "type": "query"} and first.images == ("n161.jpg",)
    assert first.group == second.group == "n161"


def test_gqa_with_an_id_twice(tmp_path):
    file = next(vqa_files.gqa(tmp_path).glob("*.json"))
    file.write_text(file.read_text().replace("{", '{"05515938": {}, ', 1))
    with pytest.raises(ValueError, match="questions.json is no JSON: .* key '05515938' twice"):
        read("gqa", tmp_path)


def test_textvqa_reads_no_address(tmp_path):
    (item,) = read("textvqa", vqa_files.textvqa(tmp_path))
    assert item.images == ("train_images/a1b2.jpg",) and item.expected["answers"] == ["stop"] * 10


def test_pope(tmp_path):
    folder = vqa_files.pope(tmp_path)
    found = read("pope", folder)
    assert [item.kind for item in found] == ["popular"] * 4 + ["random"] * 4
    assert (found[0].id, found[0].expected) == ("popular/0", {"answer": "yes"})
    assert len({item.group for item in found}) == 2
    assert len(read("pope", folder / "coco_pope_random.json")) == 4


def test_a_line_ends_at_a_line_feed_alone(tmp_path):
    question = "Is there a cat?\u2028\x85"  # a string of JSON may hold them as they are
    write_images(tmp_path, "a.png")
    line = json.dumps(POPE_ROW | {"text": question}, ensure_ascii=False)
    (tmp_path / "coco_pope_random.json").write_bytes(f"{line}\r\n\r\n".encode())
    (item,) = read("pope", tmp_path)
    assert item.question == question


@pytest.mark.skipif(not POPE.exists(), reason="needs shared/data/pope beside the repository")
def test_pope_as_it_is_published():
    found = task_of("pope").items(Source(POPE, POPE))
    kinds = [(item.kind, item.expected["answer"]) for item in found]
    assert len(found) == 9000 and len({item.group for item in found}) == 500
    for subset in ("random", "popular", "adversarial"):
        assert kinds.count((subset, "yes")) == kinds.count((subset, "no")) == 1500
    with pytest.raises(ValueError, match=r"500 of 500 images cannot be used, so nothing is scored"):
        Pictures(POPE, RULE).check(found)


def test_mme_in_both_layouts(tmp_path):
    found = read("mme", vqa_files.mme(tmp_path))
    assert [item.kind for item in found] == ["count", "count", "OCR", "OCR"]
    assert [item.expected["answer"] for item in found] == ["yes", "no"] * 2
    assert found[0].images == ("count/1.jpg",) and found[2].images == ("OCR/images/a.png",)


def test_mme_s_images_lie_beside_its_questions(tmp_path):
    folder = vqa_files.mme(tmp_path / "mme")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="--images .*other: MME's images lie beside"):
        read("mme", folder, tmp_path / "other")
    assert len(read("mme", folder, tmp_path)) == len(read("mme", folder))


def test_mmbench_keeps_the_rotations_of_the_file(tmp_path):
    found = read("mmbench", vqa_files.mmbench(tmp_path))
    assert [(item.id, item.group, item.kind) for item in found] == [
        ("1", "1", "animals"), ("1000001", "1", "animals"), ("2", "2", "people"),
    ]  # fmt: skip
    assert found[0].images == found[1].images and name_of(found[0].images[0]) != "1"
    assert found[0].question == "Look closely.\nWhich?"
    assert found[2].expected == {"answer": "C", "options": {"A": "Tim", "B": "Tom", "C": "Ted"}}


def test_mmbench_s_table_is_found_in_its_folder(tmp_path):
    table = vqa_files.mmbench(tmp_path)
    assert [one.id for one in read("mmbench", table.parent)] == ["1", "1000001", "2"]


def test_mmbench_makes_rotations_where_there_are_none(tmp_path):
    table = vqa_files.mmbench(tmp_path)
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], lines[3]]) + "\n")
    found = read("mmbench", table)
    assert [item.id for item in found] == ["2", "1000002", "2000002"]
    assert [item.expected["options"][item.expected["answer"]] for item in found] == ["Ted"] * 3
    assert [item.expected["answer"] for item in found] == ["C", "B", "A"]


def test_seedbench_leaves_out_and_counts_films(tmp_path):
    task = task_of("seedbench")
    (item,) = task.items(Source(vqa_files.seedbench(tmp_path), tmp_path))
    assert item.kind == "Instances Counting" and item.images == ("1454426_2591111986",)
    assert item.expected["options"]["D"] == "Four" and task.left_out == 1


def test_nlvr_as_it_was_published(tmp_path):
    found = read("nlvr", vqa_files.nlvr(tmp_path))
    assert [item.id for item in found] == ["dev-3-0-0", "dev-3-0-1", "dev-5-1-0", "dev-5-1-1"]
    assert found[2].question == "No box." and found[2].expected == {"answer": "false"}
    assert [item.group for item in found] == ["3-0", "3-0", "5-1", "5-1"]


def test_nlvr_in_shards(tmp_path):
    about = {"sentence": "A box", "label": True, "identifier": "3-0", "structured_rep": [["x"]]}
    with ShardWriter(tmp_path) as writer:
        for at in range(2):
            writer.write_files(
                f"dev-3-0-{at}", {"png": png(at), "json": json.dumps(about).encode()}
            )
    found = read("nlvr", tmp_path)
    assert [item.id for item in found] == ["dev-3-0-0", "dev-3-0-1"]
    assert found[0].expected == {"answer": "true"} and found[0].images == (png(0),)


@pytest.mark.skipif(not NLVR.exists(), reason="needs shared/data/nlvr beside the repository")
def test_the_majority_of_nlvr():
    found = task_of("nlvr").items(Source(NLVR / "nlvr-test.tar", NLVR))
    answers = [item.expected["answer"] for item in found]
    assert len(found) == 5940 and len({item.group for item in found}) == 990
    assert max(answers.count("true"), answers.count("false")) / 5940 == pytest.approx(
        0.562, abs=1e-3
    )


def test_captions(tmp_path):
    found = read("captions", vqa_files.captions(tmp_path))
    assert found[0].expected == {"captions": ["a cat on a mat", "one cat"]}
    assert found[2].images == ("3.jpg",)


# --- tables -------------------------------------------------------------------------------------


@pytest.fixture
def write_parquet():
    """Writes rows as a file of parquet."""
    pyarrow = pytest.importorskip("pyarrow", reason="the extra hf is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(path: Path, rows: list[dict]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path

    return write


IMAGE = {"bytes": png(5), "path": None}
OPTIONS = {f"choice_{letter}": f"option {letter}" for letter in "abcd"}
ROWS = {
    "vqav2": {"question_id": 1, "image_id": 2, "question": "q", "answer_type": "other",
              "question_type": "what", "image": IMAGE,
              "answers": [{"answer": one, "answer_id": at} for at, one in enumerate(TEN)]},
    "gqa": {"id": "1", "imageId": "n1", "question": "q", "answer": "no", "image": IMAGE,
            "types": {"structural": "logical"}},
    "textvqa": {"question_id": 1, "image_id": "a", "question": "q", "answers": TEN, "image": IMAGE},
    "pope": {"question_id": "1", "question": "q", "answer": "yes", "category": "popular",
             "image_source": "COCO_1", "image": IMAGE},
    "mmbench": {"index": 4, "question": "q", "hint": "nan", "A": "x", "B": "y", "C": None,
                "D": "nan", "answer": "B", "category": "c", "L2-category": "l", "image": IMAGE},
    "seedbench": {"question_id": "1", "question": "q", "answer": "B", "data_type": "image",
                  "question_type_id": 1, "image": [IMAGE], **OPTIONS},
    "captions": {"image_id": 1, "captions": ["a cat", "one cat"], "image": IMAGE},
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_table_of_a_hugging_face_dataset(name, tmp_path, write_parquet):
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [ROWS[name]])
    found = read(name, tmp_path, split="test")
    assert name_of(found[0].images[0]) == name_of(png(5))
    assert len(found) == (2 if name == "mmbench" else 1)


def test_mmmu(tmp_path, write_parquet):
    none = {f"image_{at}": None for at in range(3, 8)}
    shared = {"image_1": IMAGE, "image_2": {"bytes": png(6), "path": None}, **none}
    choice = {
        "id": "validation_Art_Theory_1", "question": "See <image 1> and <image 2>.",
        "options": "['one', \"it's two\"]", "answer": "B", "question_type": "multiple-choice",
    }  # fmt: skip
    open_ = {
        "id": "validation_Math_2", "question": "What of <image 1>?", "options": "[]",
        "answer": "['24', 'two dozen']", "question_type": "open",
    }  # fmt: skip
    write_parquet(tmp_path / "Art_Theory" / "validation-0-of-1.parquet", [choice | shared])
    write_parquet(tmp_path / "Math" / "validation-0-of-1.parquet", [open_ | shared])
    write_parquet(tmp_path / "Math" / "test-0-of-1.parquet", [open_ | shared])
    first, second = read("mmmu", tmp_path, split="validation")
    assert first.kind == "Art_Theory" and len(first.images) == 2 and len(second.images) == 1
    assert first.expected == {"answers": ["B"], "options": {"A": "one", "B": "it's two"}}
    assert second.expected == {"answers": ["24", "two dozen"], "options": {}}
    with pytest.raises(ValueError, match="holds the splits test, validation: give --split"):
        read("mmmu", tmp_path)
    with pytest.raises(ValueError, match="holds no dev, the splits test, validation"):
        read("mmmu", tmp_path, split="dev")


def test_an_answer_may_be_an_interval(tmp_path, write_parquet):
    row = {
        "id": "dev_Math_2", "question": "<image 1>?", "options": "[]", "answer": "[0, 1)",
        "question_type": "open", "image_1": IMAGE,
    }  # fmt: skip
    (item,) = read("mmmu", write_parquet(tmp_path / "dev.parquet", [row]))
    assert item.expected == {"answers": ["[0, 1)"], "options": {}}
    one = write_parquet(tmp_path / "one.parquet", [row | {"options": "['a']"}])
    with pytest.raises(ValueError, match="row 1: a question of open with 1 options"):
        read("mmmu", one)


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("textvqa", {"question": float("nan")}, "row 1: question is text, not nan"),
        ("gqa", {"types": "{'structural': 'query'}"}, "row 1: types is an object"),
        ("vqav2", {"answers": ["red"] * 9}, "row 1: 9 answers, and the rule is of 10"),
        ("pope", {"category": "odd"}, "row 1: category is 'odd', not random or popular"),
        ("mmbench", {"index": "x"}, "row 1: index is a whole number, not 'x'"),
        ("seedbench", {"image": [IMAGE, IMAGE]}, "row 1: 2 images, and one is wanted"),
    ],
)
def test_rows_that_are_wrong(name, change, why, tmp_path, write_parquet):
    table = write_parquet(tmp_path / "table.parquet", [ROWS[name] | change])
    with pytest.raises(ValueError, match=why):
        read(name, table)


def test_mme_in_a_table(tmp_path, write_parquet):
    rows = [
        {"question_id": "7.png", "question": f"q{k}", "answer": answer, "category": "count",
         "image": IMAGE}
        for k, answer in enumerate(("Yes", "No"))
    ]  # fmt: skip
    assert [item.group for item in read("mme", write_parquet(tmp_path / "t.parquet", rows))] == [
        "count/7.png", "count/7.png",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="count/7.png has 1 questions: each image has two"):
        read("mme", write_parquet(tmp_path / "one.parquet", rows[:1]))


def test_a_dataset_saved_to_disk(tmp_path):
    pytest.importorskip("datasets", reason="the extra hf is not installed")
    pyarrow = pytest.importorskip("pyarrow")
    home, name = tmp_path / "saved" / "test", "data-00000-of-00001.arrow"
    write_json(home / "dataset_info.json", {})
    write_json(home.parent / "dataset_dict.json", {"splits": ["test"]})
    state = {"_data_files": [{"filename": name}], "_fingerprint": "1", "_split": "test"}
    unset = ("_format_columns", "_format_type", "_format_kwargs", "_output_all_columns")
    write_json(home / "state.json", state | dict.fromkeys(unset) | {"_format_kwargs": {}})
    table = pyarrow.Table.from_pylist([ROWS["gqa"]])
    with pyarrow.ipc.new_stream(str(home / name), table.schema) as writer:
        writer.write_table(table)
    assert read("gqa", home)[0].kind == "binary"
    with pytest.raises(ValueError, match="holds the splits test: give one"):
        read("gqa", home.parent)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("file:///etc/passwd", "nothing is fetched"),
        ("http://169.254.169.254/latest/meta-data", "nothing is fetched"),
        ("//localhost:8000/x.png", "nothing is fetched"),
        ("/etc/passwd", "leads out of the folder"),
        ("../x.png", "leads out of the folder"),
        ("link.png", "leads out of the folder"),
        ("missing.png", "there is no such file"),
        ("broken.png", "cut|truncated|damaged"),
        ("words.png", "not an image"),
    ],
)
def test_images_that_cannot_be_used_stop_everything(tmp_path, image, why):
    folder = write_images(tmp_path / "images", "good.png", "broken.png")
    (folder / "broken.png").write_bytes(png(1, (300, 200))[:-40])
    (folder / "words.png").write_text("these are words, not an image")
    (tmp_path / "x.png").write_bytes(png(3))
    (folder / "link.png").symlink_to(tmp_path / "x.png")
    rows = [
        {"question_id": at, "image": name, "label": "yes", "text": "Is there a cat?"}
        for at, name in enumerate(("good.png", image))
    ]
    file = write_lines(tmp_path / "coco_pope_random.json", rows)
    with pytest.raises(ValueError, match="1 of 2 images cannot be used, so nothing is") as error:
        read("pope", file, folder)
    assert "item random/1:" in str(error.value) and _matches(why, str(error.value))


def _matches(why: str, message: str) -> bool:
    return any(one in message for one in why.split("|"))


POPE_ROW = {"question_id": 1, "image": "a.png", "label": "yes", "text": "Is there a cat?"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfe\x00", "coco_pope_random.json is no UTF-8"),
        (b"{not json", "line 1 is no JSON"),
        (b"[1]", "is no object: 1"),
        (b"", "there are no questions in these files"),
        (b'{"question_id": NaN}', "line 1 is no JSON: it holds NaN"),
        (json.dumps(POPE_ROW | {"label": "maybe"}).encode(), "label is 'maybe', not yes or no"),
        (json.dumps(POPE_ROW | {"text": " "}).encode(), "line 1: text is empty"),
        (json.dumps({"question_id": 1, "label": "no"}).encode(), "line 1 has no image"),
        ((json.dumps(POPE_ROW) + "\n").encode() * 2, "the id random/1 stands for several"),
        (json.dumps(POPE_ROW | {"text": "a " * 50_001}).encode(), "random/1 has more than 100,000"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, why):
    (tmp_path / "coco_pope_random.json").write_bytes(content)
    write_images(tmp_path, "a.png")
    with pytest.raises(ValueError) as error:
        read("pope", tmp_path)
    assert why in str(error.value)


def test_a_split_of_files_that_have_none(tmp_path):
    with pytest.raises(ValueError, match="--split val: .* holds no tables; leave it out"):
        read("pope", vqa_files.pope(tmp_path), split="val")


def test_people_who_are_not_ten(tmp_path):
    with pytest.raises(ValueError, match="number 1: 3 answers, and the rule is of 10"):
        read("vqav2", vqa_files.vqav2(tmp_path, ["red"] * 3))


def test_questions_without_annotations(tmp_path):
    folder = vqa_files.vqav2(tmp_path)
    (folder / "v2_mscoco_val2014_annotations.json").unlink()
    with pytest.raises(ValueError, match=r"holds no file of \*annotations.json"):
        read("vqav2", folder)
    write_json(folder / "x_annotations.json", {"annotations": []})
    with pytest.raises(ValueError, match="3 questions are not in both files, such as 70"):
        read("vqav2", folder)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="holds n"):
        read(name, tmp_path)


def test_a_letter_that_is_no_option(tmp_path):
    table = vqa_files.mmbench(tmp_path)
    table.write_text(table.read_text().replace("\tC\ty\t", "\tD\ty\t"))
    with pytest.raises(ValueError, match="row 3: the answer 'D' is none of A, B, C"):
        read("mmbench", table)
