"""`eval bits`: the chain rule, step by step, and what any model without context needs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import unimodal
from unimodal.command import main
from unimodal.data.scenes.world import render
from unimodal.data.scenes.world import scene as scene_of
from unimodal.data.shards import ShardWriter
from unimodal.document import Document, Image, Text
from unimodal.eval.bits import Named, bits, documents_of
from unimodal.kernels import attention
from unimodal.sequence import Batch, Row


@pytest.fixture(scope="module")
def model() -> unimodal.Model:
    return unimodal.load()


def scene(seed: int) -> np.ndarray:
    return np.asarray(render(scene_of(12345, seed), 64))


def pair(seed: int, words: str = "a red circle") -> Document:
    """An image that is asked for, and one that is named."""
    return Document(
        (
            Text("draw it", role="user", weight=0.0),
            Image(scene(seed), role="assistant"),
            Text("what is this?", role="user", weight=0.0),
            Text(words, role="assistant"),
        )
    )


def test_bits_are_those_of_the_whole_logits(model: unimodal.Model) -> None:
    """Softmax over text and control ids, or over codes alone, written out for each target."""
    document = pair(0)
    coded = next(iter(model.codec.encode([document.parts[1]])))
    whole = Document((document.parts[0], coded, *document.parts[2:]))
    row = model.sequencer.sequence(whole)
    batch = Batch.stack([Row.pack([row], len(row), model.vocabulary.special("pad"))])
    with torch.no_grad():
        attend = attention(batch.doc, batch.block, batch.private)
        hidden = model.transformer.hidden_states(batch, batch.positions, attend)[0]
        logits = (hidden @ model.transformer.output_table().T).double()
    vocabulary, text, codes = model.vocabulary, 0.0, 0.0
    first, last = vocabulary.code_slice
    for at, label in enumerate(row.labels.tolist()):
        if label >= 0 and vocabulary.is_text(label):
            kept = logits[at, : vocabulary.num_words]
            if vocabulary.word_mask is not None:
                kept = kept.masked_fill(~torch.from_numpy(vocabulary.word_mask), -torch.inf)
            text -= float(kept.log_softmax(0)[label]) / math.log(2)
        elif label >= 0 and vocabulary.is_code(label):
            codes -= float(logits[at, first:last].log_softmax(0)[label - first]) / math.log(2)
    (found,) = bits(model, [Named("one", document)], 4)["predictions"]
    assert found["text_bits"] == pytest.approx(text, rel=1e-4) and text > 0
    assert found["code_bits"] == pytest.approx(codes, rel=1e-4) and codes > 0
    assert (found["bytes"], found["codes"]) == (len("a red circle"), 64)


def test_scores_are_totals_over_totals_at_any_batch(model: unimodal.Model) -> None:
    documents = [Named(str(at), pair(at, "a circle " * (at + 1))) for at in range(4)]
    alone, together = bits(model, documents, 1), bits(model, documents, 3)
    for a, b in zip(alone["predictions"], together["predictions"], strict=True):
        assert [a["bytes"], a["codes"]] == [b["bytes"], b["codes"]]
        assert a["text_bits"] == pytest.approx(b["text_bits"], rel=1e-4)
        assert a["code_bits"] == pytest.approx(b["code_bits"], rel=1e-4)
    rows, scores = alone["predictions"], alone["scores"]["bits"]
    total = sum(one["text_bits"] for one in rows) / sum(one["bytes"] for one in rows)
    assert scores["per_byte"].value == pytest.approx(total)
    assert scores["per_byte"].low < total < scores["per_byte"].high
    # It was trained on scenes: they take fewer bits than chance does, and noise takes more.
    most = math.log2(model.vocabulary.num_codes)
    assert scores["per_code"].value < most
    rng = np.random.default_rng(0)
    noise = [Image(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), role="assistant")]
    strange = bits(model, [Named("noise", Document(tuple(noise)))], 1)["scores"]["bits"]
    assert strange["per_code"].value > scores["per_code"].value + 1
    assert strange["per_byte"].value is None


def test_shards_and_long_texts(model: unimodal.Model, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with ShardWriter(tmp_path / "shards") as writer:
        for number in range(3):
            writer.write(f"{number}", pair(number))
    book = tmp_path / "book.txt"
    words = "a red circle is left of a blue square. " * 60
    book.write_text(words)
    out = tmp_path / "bits.json"
    words_of = ["eval", "bits", str(tmp_path / "shards"), str(book), "--json", str(out)]
    done = CliRunner().invoke(main, words_of)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    rows = {one["name"]: one for one in found["predictions"]}
    assert len(rows) == 4 and rows["book.txt"]["bytes"] == len(words.encode())
    assert rows["book.txt"]["text_bits"] > 0 and rows["book.txt"]["codes"] == 0
    direct = bits(model, list(documents_of([tmp_path / "shards"], None)), 2)
    per_code = direct["scores"]["bits"]["per_code"].value
    assert found["scores"]["bits"]["per_code"]["value"] == pytest.approx(per_code, rel=1e-4)
    assert found["recipe"]["left_out"] == 0 and found["recipe"]["bits_of_images"] == "measured"


def test_what_has_no_targets_is_refused(model: unimodal.Model, tmp_path: Path) -> None:
    asked = Document((Text("draw it", role="user", weight=0.0),))
    with pytest.raises(ValueError, match="nothing in these documents is learned from"):
        bits(model, [Named("one", asked)], 1)
    (tmp_path / "latin.txt").write_bytes("größe".encode("latin-1"))
    with pytest.raises(ValueError, match="latin.txt is no UTF-8"):
        list(documents_of([tmp_path / "latin.txt"], None))
