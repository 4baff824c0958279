"""Small files in the official formats of benchmarks of questions about images."""

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

TEN = ["red"] * 6 + ["blue"] * 4


def png(shade: int, size: tuple[int, int] = (16, 12)) -> bytes:
    """The content of an image of one grey."""
    file = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


def write_images(folder: Path, *names: str) -> Path:
    """Write an image of another grey for each name, and return the folder."""
    for shade, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(20 * shade))
    return folder


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_lines(path: Path, values: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def vqav2(folder: Path, people: list[str] = TEN) -> Path:
    """Two questions about image 7 and one about image 8."""
    questions = [
        {"image_id": 7, "question": "What colour is it?", "question_id": 70},
        {"image_id": 7, "question": "Is it red?", "question_id": 71},
        {"image_id": 8, "question": "How many?", "question_id": 80},
    ]
    types = ("other", "yes/no", "number")
    annotations = [
        {
            "question_type": "what", "multiple_choice_answer": people[0], "image_id": q["image_id"],
            "answers": [
                {"answer": said, "answer_confidence": "yes", "answer_id": at}
                for at, said in enumerate(people, 1)
            ],
            "answer_type": kind, "question_id": q["question_id"],
        }
        for q, kind in zip(questions, types, strict=True)
    ]  # fmt: skip
    name = "v2_OpenEnded_mscoco_val2014_questions.json"
    write_json(folder / name, {"questions": questions, "data_subtype": "val2014"})
    write_json(folder / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})
    return write_images(folder, "COCO_val2014_000000000007.jpg", "COCO_val2014_000000000008.jpg")


def gqa(folder: Path) -> Path:
    questions = {
        "05515938": {
            "question": "What is it?", "imageId": "n161", "answer": "pipe", "isBalanced": True,
            "types": {"structural": "query", "semantic": "obj", "detailed": "existThatC"},
        },
        "05515939": {
            "question": "Is it red?", "imageId": "n161", "answer": "no", "isBalanced": True,
            "types": {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"},
        },
    }  # fmt: skip
    write_json(folder / "testdev_balanced_questions.json", questions)
    return write_images(folder, "n161.jpg")


def textvqa(folder: Path) -> Path:
    row = {
        "question": "what does it say?", "image_id": "a1b2", "question_id": 34602,
        "flickr_original_url": "https://farm.example/never.jpg", "answers": ["stop"] * 10,
    }  # fmt: skip
    write_json(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": [row]})
    return write_images(folder, "train_images/a1b2.jpg")


def pope(folder: Path, images: int = 2, subsets: tuple[str, ...] = ("random", "popular")) -> Path:
    """For each subset and image one thing that is there and one that is not."""
    names = [f"COCO_val2014_{at:012d}.jpg" for at in range(images)]
    for subset in subsets:
        rows = [
            {
                "question_id": 2 * at + k, "image": name, "label": label,
                "text": f"Is there a {thing} in the image?",
            }
            for at, name in enumerate(names)
            for k, (thing, label) in enumerate((("cat", "yes"), ("dog", "no")))
        ]  # fmt: skip
        write_lines(folder / f"coco_pope_{subset}.json", rows)
    return write_images(folder, *names)


def mme(folder: Path) -> Path:
    """A subtask in one folder, one in two."""
    for image, texts, name in (
        ("count/1.jpg", "count", "1"),
        ("OCR/images/a.png", "OCR/questions_answers_YN", "a"),
    ):
        write_images(folder, image)
        (folder / texts).mkdir(parents=True, exist_ok=True)
        lines = (
            "Are there two? Please answer yes or no.\tYes\n"
            "Are there three? Please answer yes or no.\tNo\n"
        )
        (folder / texts / f"{name}.txt").write_text(lines)
    return folder


def mmbench(folder: Path) -> Path:
    """A question in two rotations that share a cell of an image, and one of three options."""
    head = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tl2-category"
    image = base64.b64encode(png(9)).decode()
    rows = [
        f"1\tWhich?\tLook closely.\ta cat\ta dog\t\t\tA\tx\t{image}\tanimals",
        "1000001\tWhich?\tLook closely.\ta dog\ta cat\t\t\tB\tx\t1\tanimals",
        f"2\tWho?\t\tTim\tTom\tTed\t\tC\ty\t{base64.b64encode(png(99)).decode()}\tpeople",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mmbench_dev.tsv").write_text("\n".join([head, *rows]) + "\n")
    return folder / "mmbench_dev.tsv"


def seedbench(folder: Path) -> Path:
    row = {
        "answer": "A", "choice_a": "One", "choice_b": "Two", "choice_c": "Three",
        "choice_d": "Four", "data_id": "1454426_2591111986", "data_type": "image",
        "question": "How many towels?", "question_id": "101669", "question_type_id": 5,
    }  # fmt: skip
    film = row | {"data_type": "video", "question_id": "1", "data_id": "film.mp4"}
    value = {"questions": [row, film], "question_type": {"Instances Counting": 5}}
    write_json(folder / "SEED-Bench.json", value)
    return write_images(folder, "1454426_2591111986")


def nlvr(folder: Path) -> Path:
    rows = [
        {"identifier": "3-0", "directory": "4", "sentence": "There is a box.", "label": "true"},
        {"identifier": "5-1", "directory": "4", "sentence": "No box", "label": "false"},
    ]
    write_lines(folder / "dev.json", rows)
    names = [f"images/4/dev-{row['identifier']}-{k}.png" for row in rows for k in range(2)]
    return write_images(folder, *names)


def captions(folder: Path) -> Path:
    images = [{"id": at, "file_name": f"{at}.jpg"} for at in (1, 2, 3)]
    said = {1: ["a cat on a mat", "one cat"], 2: ["two dogs run", "dogs in a field"], 3: ["a bus"]}
    annotations = [
        {"image_id": at, "id": 10 * at + k, "caption": text}
        for at, texts in said.items()
        for k, text in enumerate(texts)
    ]
    write_json(folder / "captions_val2014.json", {"images": images, "annotations": annotations})
    return write_images(folder, "1.jpg", "2.jpg", "3.jpg")
