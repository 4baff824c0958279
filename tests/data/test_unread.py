"""What nothing reads at the end of a document is left out of a share of them, exactly."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.faults import HASH, Means
from flow_cases import flow_model
from head_models import hidden_of, next_code_model, picture, request, talk
from masked_models import masked_model
from scale_models import scale_model

from unimodal.data.digest import Feed, digest
from unimodal.data.estimator import LengthEstimator
from unimodal.data.lengths import measure
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.shards import ShardWriter, find_shards
from unimodal.data.sources import SourceConfig
from unimodal.data.unread import begun, unread_length
from unimodal.document import Document, Image, Text
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.heads.masked import MASK, MASKED_LAYOUT, MaskedInputs
from unimodal.heads.next_code import NextCodeInputs
from unimodal.layout import Special, Turn
from unimodal.model import Model
from unimodal.sequence import IMAGE, TEXT
from unimodal.sequencer import DROPS, Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import TokenizerConfig
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import Vocabulary

MODELS = {
    "masked": lambda: masked_model(MaskSchedule(steps=4)),
    "scale": scale_model,
    "flow": flow_model,
}
WORDS = TextTokenizer.train(["draw which colour is it"], 280)
VOCABULARY = Vocabulary.new(WORDS.num_ids, 256, (MASK,))
CONFIG = LoaderConfig(sequence_length=128, batch_rows=4, window_rows=8, seed=3, caption_dropout=0.2)


def documents(model: Model) -> dict[str, tuple[Document, bool]]:
    """Documents, and whether something at their end is read by nothing."""
    drawing = (*request("draw").parts, picture(model, 1))
    told = Text("here it is", role="assistant")
    return {
        "a drawing": (Document(drawing), True),
        "words and a drawing": (Document((request("draw").parts[0], told, drawing[1])), True),
        "an edit": (Document(talk(model).parts[:-1]), True),
        "a page": (Document((Text("a page"), replace(picture(model, 1), role=None))), True),
        "words at the end": (talk(model), False),
        "a question": (Document((*drawing, *request("what is it?").parts)), False),
        "given": (Document((replace(picture(model, 1, "user"), weight=0.0),)), False),
        "not learned": (Document((drawing[0], replace(drawing[1], weight=0.0))), False),
    }


@pytest.mark.parametrize("name", MODELS)
def test_what_is_left_out_taught_the_end_of_the_turn_alone(name: str) -> None:
    """All else is learned as before, from the same hidden vectors."""
    model = MODELS[name]()
    for words, (document, ends_unread) in documents(model).items():
        for drop in DROPS:
            whole = model.sequencer.sequence(document, drop, (1, 2))
            count = unread_length(model.sequencer, document)
            if not ends_unread:
                assert count == 0, words
                continue
            kept = begun(whole, len(whole) - count)
            left = slice(len(kept), len(whole))
            assert kept.private[-1] > 0 and not whole.private[left].any(), words
            assert not (whole.modality[left] == IMAGE).any(), words
            assert (whole.modality[left] == TEXT).sum() == 1, "the end of the turn or the document"
            assert count < len(whole) and [s for s in whole.spans if s.stop <= len(kept)] == [
                *kept.spans
            ]
            torch.testing.assert_close(hidden_of(model, kept), hidden_of(model, whole)[: len(kept)])


END = Special("turn_end")
CHANGES = {
    "ours": {},
    "words before": {"turns": {"assistant": Turn(("so: ",), (END,))}},
    "words behind": {"turns": {"assistant": Turn((), ("that is it", END))}, "end": ("\n",)},
    "words joined": {"turns": {"assistant": Turn((), ("it is", END))}, "joined": True},
    "no turns": {"turns": {}},
    "bare": {"image": replace(MASKED_LAYOUT.image, closing=())},
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_layouts_end_elsewhere(name: str) -> None:
    layout = replace(MASKED_LAYOUT, **CHANGES[name])
    read = Sequencer(VOCABULARY, WORDS, HASH, MaskedInputs(MaskSchedule(), layout))
    codes = np.zeros((4, 1), int)
    image = Image(codes=codes, grid=Grid(2, 2), codec_hash=HASH, role="assistant")
    document = Document((Text("draw", "user", 0), image))
    whole = read.sequence(document)
    (last,) = np.flatnonzero(whole.private)[-1:]
    assert unread_length(read, document) == len(whole) - last - 1


def test_a_head_without_copies_reads_all() -> None:
    model = next_code_model(64, Grid(3, 4), addresses=True)
    for document, _ in documents(model).values():
        assert unread_length(model.sequencer, document) == 0


# --- rows -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceConfig]:
    """Drawings that end their document, and drawings that words stand behind."""
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, max_samples=17) as writer:
        for index in range(60):
            image = Image(np.full((16, 16, 3), index, np.uint8), role="assistant")
            behind = (Text("it is so", "assistant"),) * (index % 2)
            writer.write(str(index), Document((Text(f"draw #{index}", "user", 0), image, *behind)))
    return {"all": SourceConfig(str(folder))}


def sequencer(inputs=None) -> Sequencer:
    return Sequencer(VOCABULARY, WORDS, HASH, inputs or MaskedInputs(MaskSchedule()))


def ends(sources: dict[str, SourceConfig], share: float, count: int = 30, **more: int) -> list[str]:
    """How each drawing of some batches ends: 'read', 'unread', or with 'words'."""
    config = replace(CONFIG, unread_share=share, seed=more.pop("seed", CONFIG.seed))
    loader = Loader(sources, sequencer(), Means(), config, **more)
    found = []
    for batch, _ in islice(loader, count):
        for ids, doc, private in zip(batch.ids, batch.doc, batch.private, strict=True):
            for number in range(int(doc.max()) + 1):
                mine = doc == number
                if private[mine][-1] > 0:
                    found.append("unread")
                else:
                    so = WORDS.encode("it is so")
                    found.append("words" if any(ids[mine][-len(so) - 3 :] == so[-1]) else "read")
    return found


def test_a_share_ends_unread(sources: dict[str, SourceConfig]) -> None:
    none, some, every = (ends(sources, share) for share in (0.0, 0.75, 1.0))
    assert set(none) == {"read", "words"} and set(every) == {"unread", "words"}
    drawn = [one for one in some if one != "words"]
    expected, n = 0.75, len(drawn)
    assert n > 100 and abs(drawn.count("unread") / n - expected) < 4 * (0.1875 / n) ** 0.5
    assert some == ends(sources, 0.75) != ends(sources, 0.75, seed=4)
    # Shorter documents leave room for others.
    assert len(every) > len(some) > len(none)


def test_ranks_and_digests_agree(sources: dict[str, SourceConfig]) -> None:
    def found(share: float, ranks: int) -> str:
        config = replace(CONFIG, unread_share=share)
        return digest(Feed(sources, sequencer(), Means(), config), ranks, 3, 12)

    assert found(0.5, 1) == found(0.5, 2) == found(0.5, 4)
    assert len({found(0.0, 1), found(0.5, 1), found(1.0, 1)}) == 3


def test_the_index_knows_what_is_unread(sources: dict[str, SourceConfig]) -> None:
    paths = find_shards(Path(sources["all"].shards))
    masked, plain = (
        LengthEstimator(sequencer(inputs), 128, TokenizerConfig())
        for inputs in (None, NextCodeInputs())
    )
    # Four clean codes, and the ends of image, turn and document, of each second document.
    assert sorted(measure(paths, masked).records["unread"].tolist()) == [0] * 30 + [7] * 30
    for other in (plain, replace(masked, learns_images=False)):
        assert not measure(paths, other).records["unread"].any()


def test_a_setting_that_a_head_would_ignore_is_refused(sources: dict[str, SourceConfig]) -> None:
    config = replace(CONFIG, unread_share=0.5)
    with pytest.raises(ValueError, match=r"loader.unread_share 0.5: .* leave it out"):
        Loader(sources, sequencer(NextCodeInputs()), Means(), config)
    assert LoaderConfig(unread_share=1.5).problems() == ["unread_share 1.5: from 0 to 1"]
    assert config.plain.unread_share == 0.0, "held-out documents are read to their end"
