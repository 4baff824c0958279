"""What is learned of codes: those that an edit changes weigh more, and some enter as others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.faults import HASH, Means

from unimodal.data.changed_codes import weighed
from unimodal.data.code_noise import learned_codes, noised
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.shards import ShardWriter
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Image, Text
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.heads.masked import MaskedInputs
from unimodal.heads.next_code import NextCodeInputs
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import Vocabulary

CODES = 40
TEXT = TextTokenizer.train(["edit it"], 260)
VOCABULARY = Vocabulary.new(TEXT.num_ids, CODES)
SEQUENCER = Sequencer(VOCABULARY, TEXT, HASH, NextCodeInputs())
CONFIG = LoaderConfig(sequence_length=128, batch_rows=2, window_rows=4, caption_dropout=0.0)


def image(codes: list[int], role: str, width: int = 3) -> Image:
    grid = Grid(len(codes) // width, width)
    return Image(
        codes=np.array(codes)[:, None], grid=grid, codec_hash=HASH, role=role,
        weight=float(role == "assistant"),
    )  # fmt: skip


def edit(before: list[int], after: list[int], widths: tuple[int, int] = (3, 3)) -> Document:
    given, drawn = image(before, "user", widths[0]), image(after, "assistant", widths[1])
    return Document((given, Text("edit it", "user", 0), drawn))


def code_weights(document: Document, by: float) -> list[float]:
    """The weights of the codes that are learned, in their order."""
    sequence = weighed(SEQUENCER.sequence(document), VOCABULARY, by)
    return sequence.weights[np.flatnonzero(learned_codes(sequence, VOCABULARY)) - 1].tolist()


def test_codes_that_an_edit_changes_weigh_more() -> None:
    document = edit([1, 2, 3, 4, 5, 6], [1, 9, 3, 4, 5, 7])
    assert code_weights(document, 4.0) == [1, 4, 1, 1, 1, 4]
    plain, heavy = (
        SEQUENCER.sequence(document),
        weighed(SEQUENCER.sequence(document), VOCABULARY, 4),
    )
    assert heavy.weights.sum() - plain.weights.sum() == 2 * 3
    for name in ("ids", "labels", "modality", "positions"):
        assert (getattr(plain, name) == getattr(heavy, name)).all()


def test_an_image_is_compared_with_the_latest_of_its_grid() -> None:
    first, second, third = [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7], [1, 2, 3, 4, 5, 6]
    words, again = Text("edit it", "user", 0), Text("undo it", "user", 0)
    chain = Document(
        (image(first, "user"), words, image(second, "assistant"), again, image(third, "assistant"))
    )
    assert code_weights(chain, 2.0) == [1, 1, 1, 1, 1, 2] * 2
    assert code_weights(edit(first, second, (2, 3)), 2.0) == [1] * 6, "another grid"
    alone = Document((words, image(second, "assistant")))
    assert code_weights(alone, 2.0) == [1] * 6


def test_a_share_of_learned_codes_enters_as_others_and_targets_stay() -> None:
    rng = np.random.default_rng(0)
    side = 24
    given, drawn = (rng.integers(CODES, size=side * side).tolist() for _ in range(2))
    sequence = SEQUENCER.sequence(edit(given, drawn, (side, side)))
    made = noised(sequence, VOCABULARY, 0.2, (1, 2))
    changed = np.flatnonzero(made.ids != sequence.ids)
    assert learned_codes(sequence, VOCABULARY)[changed].all(), "the given image is as it was given"
    expected = 0.2 * (1 - 1 / CODES) * side * side
    assert abs(len(changed) - expected) < 4 * expected**0.5
    assert VOCABULARY.is_code(made.ids[changed]).all()
    assert (made.labels == sequence.labels).all() and (made.weights == sequence.weights).all()
    assert (made.ids == noised(sequence, VOCABULARY, 0.2, (1, 2)).ids).all()
    assert (made.ids != noised(sequence, VOCABULARY, 0.2, (1, 3)).ids).any()


def rows(folder, documents: list[Document], changed: float = 1.0, inputs=None, **settings):
    """The first batch of shards of pixels, whose codes are the means of patches."""
    with ShardWriter(folder) as writer:
        for number, document in enumerate(documents):
            writer.write(str(number), document)
    read = Sequencer(Vocabulary.new(TEXT.num_ids, 256), TEXT, HASH, inputs or NextCodeInputs())
    source = SourceConfig(str(folder), changed_weight=changed)
    return next(iter(Loader({"all": source}, read, Means(), replace(CONFIG, **settings))))[0]


def painted(number: int) -> Document:
    """An edit of the last of four patches."""
    before = np.full((16, 16, 3), number, np.uint8)
    after = before.copy()
    after[8:, 8:] = 200
    words = Text("edit it", "user", 0)
    return Document((Image(before, role="user", weight=0), words, Image(after, role="assistant")))


def test_batches_are_learned_so(tmp_path) -> None:
    documents = [painted(number) for number in range(12)]
    plain = rows(tmp_path / "plain", documents)
    heavy = rows(tmp_path / "heavy", documents, changed=3.0)
    assert torch.equal(plain.ids, heavy.ids)
    more = heavy.weights != plain.weights
    assert more.any() and (heavy.weights[more] == 3).all() and (plain.weights[more] == 1).all()
    drawn = (plain.modality == 2) & (plain.weights > 0)
    assert int(drawn.sum()) == 4 * int(more.sum()), "one patch of four"
    noisy = rows(tmp_path / "noisy", documents, code_noise=0.5)
    assert (noisy.ids != plain.ids).any() and torch.equal(noisy.labels, plain.labels)
    assert torch.equal(noisy.ids, rows(tmp_path / "again", documents, code_noise=0.5).ids)


def test_settings_that_a_head_would_ignore_are_refused(tmp_path) -> None:
    for number, (settings, words) in enumerate(
        [
            ({"code_noise": 0.1}, "loader.code_noise 0.1: the image head does not predict"),
            ({"changed": 2.0}, "sources.all.changed_weight 2.0: the image head does not"),
        ]
    ):
        with pytest.raises(ValueError, match=words):
            rows(
                tmp_path / str(number),
                [painted(1)],
                inputs=MaskedInputs(MaskSchedule()),
                **settings,
            )
    assert LoaderConfig(code_noise=1.0).problems() == ["code_noise 1.0: from 0 to below 1"]
