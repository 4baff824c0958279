"""What `train sample` shows: conversations answered, other documents gone on with."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image as PILImage
from tiny_runs import recipe

from unimodal.command import main
from unimodal.data.scenes.world import render, scene
from unimodal.data.shards import ShardWriter
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Image, Text
from unimodal.events import ReplyDone
from unimodal.generation import Generation
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.train import lm
from unimodal.train.continuing import Continuing, cut
from unimodal.train.run import LmRun

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = "some words of a page that is long enough to be cut, number {}"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain texts, captions in both orders, and what nothing can be asked of."""
    folder = tmp_path_factory.mktemp("bare")
    with ShardWriter(folder) as writer:
        for number in range(30):
            image, words = Image(render(scene(5, number), 64)), Text(f"caption {number}")
            parts = {
                0: (Text(TEXT.format(number)),), 1: (image, words), 2: (words, image),
                3: (Text("word"),), 4: (image,),
            }[number % 5]  # fmt: skip
            writer.write(f"{number:03d}", Document(parts))
    return folder


def sampled(config: LmRun, count: int) -> list[dict[str, str]]:
    """Train a little, let the command sample, and return what it wrote."""
    lm.train(config)
    words = ["train", "sample", str(config.output), "--count", str(count)]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    page = Path(done.stdout.strip())
    assert PILImage.open(page).width > 100
    return json.loads(page.with_suffix(".json").read_text())


def test_documents_of_pretraining_are_gone_on_with(
    tmp_path: Path, bare: Path, tokenizer: Path
) -> None:
    config = recipe(tmp_path / "run", bare, tokenizer, 2)
    config = replace(config, loader=replace(config.loader, sequence_length=256))
    lines = sampled(config, 9)
    assert len(lines) > 3
    texts = [line for line in lines if line["question"].startswith("some words")]
    wholes = {TEXT.format(number) for number in range(30)}
    assert texts and all(line["question"] + line["answer"] in wholes for line in texts)
    shown = {(line["question"].split()[0], line["answer"].split()[0]) for line in lines}
    assert shown == {("some", "that"), ("(image)", "caption"), ("caption", "(image)")}
    assert not any(line["question"] == "word" for line in lines)


def test_conversations_stand_beside_documents(
    tmp_path: Path, bare: Path, shards: Path, tokenizer: Path
) -> None:
    config = recipe(tmp_path / "run", shards, tokenizer, 1)
    sources = {**config.sources, "bare": SourceConfig(str(bare))}
    lines = sampled(replace(config, sources=sources), 12)
    bare_lines = [one for one in lines if "caption" in one["question"] + one["answer"]
                  or one["question"].startswith("some words")]  # fmt: skip
    assert 0 < len(bare_lines) < len(lines)


def test_nothing_to_ask_is_said(tmp_path: Path, tokenizer: Path) -> None:
    with ShardWriter(tmp_path / "words") as writer:
        for number in range(8):
            writer.write(f"{number}", Document((Text("word"),)))
    config = recipe(tmp_path / "run", tmp_path / "words", tokenizer, 1)
    lm.train(config)
    done = CliRunner().invoke(main, ["train", "sample", str(config.output)])
    assert done.exit_code == 2 and "no document of more than one word or image" in done.stderr


# --- going on -----------------------------------------------------------------------------------


def test_what_is_given_is_what_training_sees_of_a_document(drawing_model: Model) -> None:
    document = Document((Text("o"), Text("k")))
    whole = drawing_model.sequencer.sequence(document).ids.tolist()
    going_on = Continuing.of(drawing_model)
    end = drawing_model.vocabulary.special("end")
    assert going_on.sequencer.prompt(document).ids.tolist() == whole[:-1] and whole[-1] == end
    assert going_on.sequencer.layout.stops == [end]
    assert drawing_model.sequencer.layout.stops == [drawing_model.vocabulary.special("turn_end")]


def test_it_goes_on_until_the_document_ends(drawing_model: Model) -> None:
    """The model's table: behind 'k' comes an image, and nothing else is likely but by budget."""
    generation = Generation(Continuing.of(drawing_model))
    generation.submit(Document((Text("ok"),)), Sampling(max_text_tokens=3, max_images=1))
    *_, done = generation.run()
    assert isinstance(done, ReplyDone) and isinstance(done.parts[0], Image)
    assert done.ids[-1] == drawing_model.vocabulary.special("end")


def test_where_a_document_is_cut() -> None:
    image = Image(np.zeros((8, 8, 3), np.uint8))
    text = Text("one two three four five six")
    found = cut(Document((text,)))
    assert found is not None
    assert [part.text for part in (*found[0].parts, *found[1])] == [  # type: ignore[union-attr]
        "one two", " three four five six"
    ]  # fmt: skip
    assert cut(Document((image, text))) == (Document((image,)), (text,))
    assert cut(Document((text, image, text))) == (Document((text,)), (image, text))
    for none in ((image,), (Text("one"),), (Text("a b c", role="user"),), ()):
        assert cut(Document(none)) is None
