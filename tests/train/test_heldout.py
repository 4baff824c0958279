"""Losses and bits on held-out data: of a model that knows nothing, and as a run goes."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from spelled import document_of
from tiny_runs import SHAPE, metrics, recipe

from unimodal.codec import ImageCodec
from unimodal.data.loader import LoaderConfig
from unimodal.data.shards import ShardWriter
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Text
from unimodal.heads.next_code import NextCodeInputs
from unimodal.sequence import Batch
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.train import heldout, lm
from unimodal.train.objectives import LossConfig, language
from unimodal.train.optimizer import OptimizerConfig
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("one_thread")


def test_held_out_losses_stand_beside_the_unigram_entropy(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    """Of a model that predicts every id alike the loss is log V; entropies are counted by hand."""
    image = ImageTokenizer.load(tokenizer)
    text = TextTokenizer.train(["a red circle"], 300)
    vocabulary = Vocabulary.new(text.num_ids, image.num_codes)
    sequencer = Sequencer(vocabulary, text, image.hash, NextCodeInputs())
    config = heldout.HeldOutConfig({"scenes": SourceConfig(str(shards))}, rows=5)
    settings = replace(LoaderConfig(), window_rows=8, caption_dropout=0.9)
    measured = heldout.HeldOut(config, sequencer, ImageCodec(image), settings)
    model = UnifiedModel(SHAPE.of(vocabulary, ()))
    torch.nn.init.zeros_(model.model.embed_tokens.weight)

    def objective(batch: Batch) -> dict[str, float]:
        return language(model, batch, LossConfig()).reports

    found = measured(objective)
    uniform = {"text": vocabulary.num_words, "image": image.num_codes}
    for modality, size in uniform.items():
        assert found[f"held_out.scenes.{modality}"] == pytest.approx(math.log(size), abs=1e-5)
        counts: Counter[int] = Counter()
        for batch in measured.batches["scenes"]:
            for label, weight in zip(
                batch.labels[0].tolist(), batch.weights[0].tolist(), strict=True
            ):
                if label >= 0 and vocabulary.is_code(label) == (modality == "image"):
                    counts[label] += weight
        total = sum(counts.values())
        entropy = -sum(n / total * math.log(n / total) for n in counts.values())
        assert found[f"held_out.scenes.{modality}_unigram"] == pytest.approx(entropy, rel=1e-6)
    null = vocabulary.special("null")
    assert not any((batch.ids == null).any() for batch in measured.batches["scenes"])


WORDS = [
    "A na\u00efve caf\u00e9.\n",
    "\u65e5\u672c\u8a9e and \U0001f600",
    "the end of the line " * 90,
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three plain texts, the last one longer than a row, and a conversation without an image."""
    directory = tmp_path_factory.mktemp("texts")
    talk = (Text("not learned", "user", 0.0), Text("learned", "assistant", 1.0))
    with ShardWriter(directory) as writer:
        for number, parts in enumerate([*((Text(text),) for text in WORDS), talk]):
            writer.write(f"{number}", Document(parts))
    return directory


def test_bits_per_byte_of_plain_text(texts: Path, shards: Path, tokenizer: Path) -> None:
    """A model that predicts every id alike takes log2 V bits for each id of each text."""
    image = ImageTokenizer.load(tokenizer)
    text = TextTokenizer.train(WORDS, 300)
    vocabulary = Vocabulary.new(text.num_ids, image.num_codes)
    sequencer = Sequencer(vocabulary, text, image.hash, NextCodeInputs())
    sources = {
        "texts": SourceConfig(str(texts), text_weight=0.5),
        "scenes": SourceConfig(str(shards)),
    }
    settings = replace(LoaderConfig(), sequence_length=256, window_rows=8)
    config = heldout.HeldOutConfig(sources, rows=4)
    measured = heldout.HeldOut(config, sequencer, ImageCodec(image), settings)
    model = UnifiedModel(SHAPE.of(vocabulary, ()))
    torch.nn.init.zeros_(model.model.embed_tokens.weight)

    def objective(batch: Batch) -> dict[str, float]:
        config = LossConfig(text=0.3, z=1e-3)
        return language(model, batch, config).reports

    found = measured(objective)
    assert "held_out.scenes.text" in found and "held_out.scenes.bits_per_byte" not in found
    ids, text_bytes = [], 0
    for batch in measured.batches["texts"]:
        labels = batch.labels[batch.labels >= 0].tolist()
        ids += [label for label in labels if label < text.num_ids]
        for doc in batch.doc.unique().tolist():
            inside = batch.ids[0][batch.doc[0] == doc].tolist()
            if doc >= 0:
                parts = document_of(sequencer.layout, inside).parts
                text_bytes += sum(len(p.text.encode()) for p in parts if p.role != "user")
    expected = math.log2(vocabulary.num_words) * len(ids) / text_bytes
    assert found["held_out.texts.bits_per_byte"] == pytest.approx(expected, rel=1e-6)
    assert measured.plain["texts"].num_bytes == text_bytes > 300


def test_a_run_tells_what_it_did_to_text(
    tmp_path: Path, texts: Path, shards: Path, tokenizer: Path, capsys
) -> None:
    first = lm.train(recipe(tmp_path / "first", shards, tokenizer, 2))
    held_out = heldout.HeldOutConfig({"texts": SourceConfig(str(texts))}, rows=2)
    config = replace(recipe(tmp_path / "run", shards, tokenizer, 3), held_out=held_out)
    lm.train(replace(config, weights=first, optimizer=OptimizerConfig(lr=1e-12)))
    name = "held_out.texts.bits_per_byte"
    before = json.loads((tmp_path / "run" / "before.json").read_text())[name]
    after = metrics(tmp_path / "run")[-1][name]
    assert 0 < before == pytest.approx(after, rel=1e-5)
    assert f"{name} {before:.4f} -> {after:.4f}\n" in capsys.readouterr().err


def test_a_run_measures_held_out_data_as_it_goes(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    config = recipe(tmp_path / "run", shards, tokenizer, 5)
    source = SourceConfig(str(shards))
    parts = {
        "learned": replace(source, split=(0.0, 0.8)),
        "other": replace(source, split=(0.8, 1.0)),
    }
    held_out = heldout.HeldOutConfig({"other": parts["other"]}, rows=2, every_steps=2)
    lm.train(replace(config, sources={"learned": parts["learned"]}, held_out=held_out))
    logged = [m.get("held_out.other.image") for m in metrics(tmp_path / "run")]
    assert [value is not None for value in logged] == [False, True, False, True, True]
    assert logged[-1] < logged[1]
