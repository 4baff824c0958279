"""What an image head makes of images that are learned: lengths, their index, rows and digests."""

from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.faults import HASH, Means
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.data.digest import Feed, digest
from unimodal.data.estimator import LengthEstimator
from unimodal.data.lengths import measure
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.measured import measure_shard
from unimodal.data.shards import ShardWriter, find_shards
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Image, Text
from unimodal.heads.head import ImageInputs, ImageTokens
from unimodal.heads.next_code import NextCodeInputs
from unimodal.layout import OWN_LAYOUT, BoundLayout, Side, Turn, Unconditional
from unimodal.sequence import IMAGE, Batch, Span
from unimodal.sequencer import DROPS, Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import TokenizerConfig
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import Vocabulary

TEXT = TextTokenizer.train(["draw which colour is it"], 280)
VOCABULARY = Vocabulary.new(TEXT.num_ids, 256)
PATCHES = TokenizerConfig()
CONFIG = LoaderConfig(sequence_length=128, batch_rows=4, window_rows=8, seed=3, caption_dropout=0.5)
COLUMNS = [one.name for one in fields(ImageTokens) if one.name not in ("num_positions", "spans")]


def noise(key: tuple[int, ...], count: int) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    return rng.standard_normal((count, 3)).astype(np.float32)


@dataclass(frozen=True)
class Twice(NextCodeInputs):
    """An image that is learned stands twice: as private noise, which predicts the codes, and then
    as its codes.
    """

    key: str = "twice"

    def extra_length(self, grid: Grid, learned: bool) -> int:
        """Return how many tokens the noise takes."""
        return grid.size if learned else 0

    def __call__(
        self, layout: BoundLayout, image: Image, learned: bool, key: tuple[int, ...]
    ) -> ImageTokens:
        """Return the opening, the noise, the codes and the closing."""
        clean = super().__call__(layout, image, False, key)
        if not learned:
            return clean
        at, n = clean.spans[0].start, image.grid.size
        noised = ImageTokens(
            ids=np.full(n, layout.vocabulary.special("pad")),
            weights=np.zeros(n, np.float32),
            is_image=np.zeros(n, bool),
            own_labels=layout.vocabulary.code_to_id(image.codes[:, 0]),
            own_weights=np.full(n, image.weight, np.float32),
            block=np.ones(n, np.int32),
            private=np.ones(n, np.int32),
            positions=at + np.arange(n),
            address=(image.grid.addresses + 1).astype(np.int16),
            num_positions=n,
        )
        columns = {
            name: np.insert(getattr(clean, name), [at] * n, getattr(noised, name), axis=0)
            for name in COLUMNS
        }
        span = Span(at, at + n, image.grid, latents=noise(key, n), key=key)
        spans = (span, *(one.moved(n) for one in clean.spans))
        return ImageTokens(**columns, num_positions=clean.num_positions, spans=spans)


def sequencer(inputs: ImageInputs) -> Sequencer:
    return Sequencer(VOCABULARY, TEXT, HASH, inputs)


def spelled(**changes: object) -> NextCodeInputs:
    return NextCodeInputs(replace(OWN_LAYOUT, **changes))


BARE = replace(OWN_LAYOUT.image, row_end=None, closing=())
DIGITS = replace(OWN_LAYOUT.image, opening=("<", Side("height"), "*", Side("width"), ">"))
FEW = {role: Turn((f"{role}: ",), OWN_LAYOUT.turns[role].after) for role in ("user", "assistant")}
INPUTS = {
    "ours": NextCodeInputs(),
    "twice": Twice(),
    "twice and bare": Twice(replace(OWN_LAYOUT, image=BARE)),
    "sizes in digits": spelled(image=DIGITS),
    "the last row does not end": spelled(image=replace(OWN_LAYOUT.image, last_row_ends=False)),
    "turns in words, none of the system": spelled(turns=FEW, begin=("B",), end=()),
    "padded": spelled(unconditional=Unconditional("padded", OWN_LAYOUT.unconditional.pieces)),
    "joined": spelled(turns=FEW, joined=True),
}
PARTS = st.lists(
    st.tuples(
        st.sampled_from([None, "system", "user", "assistant"]),
        st.text(max_size=6) | st.tuples(st.integers(1, 4), st.integers(1, 4)),
        st.sampled_from([0.0, 1.0, 0.5]),
    ),
    min_size=1,
    max_size=6,
)


def document_of(parts: list) -> Document:
    made: list[Text | Image] = []
    for role, what, weight in parts:
        if isinstance(what, str):
            made.append(Text(what, role, weight))
            continue
        grid = Grid(*what)
        codes_n1 = np.zeros((grid.size, 1), int)
        made.append(Image(codes=codes_n1, grid=grid, codec_hash=HASH, role=role, weight=weight))
    return Document(tuple(made))


@pytest.mark.parametrize("name", INPUTS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(PARTS)
def test_measured_lengths_are_those_of_sequences(name: str, parts: list) -> None:
    made_of, document = sequencer(INPUTS[name]), document_of(parts)
    found = {drop: made_of.sequence(document, drop, (1, 2)) for drop in DROPS}
    assert made_of.measure(document) == {drop: len(one) for drop, one in found.items()}
    for one in found.values():
        assert {len(getattr(one, column)) for column in one.ARRAYS} == {len(one)}


def test_lengths_are_kept_apart_for_each_head_layout_and_use() -> None:
    estimators = [LengthEstimator(sequencer(inputs), 128, PATCHES) for inputs in INPUTS.values()]
    estimators.append(replace(estimators[0], learns_images=False))
    assert len({estimator.key for estimator in estimators}) == len(estimators)
    again = LengthEstimator(sequencer(Twice()), 128, PATCHES)
    assert again.key == estimators[1].key


@pytest.mark.parametrize("name", INPUTS)
def test_pieces_of_long_documents_fill_the_sequence_length(name: str, tmp_path: Path) -> None:
    """Whatever a layout puts around documents, turns and images."""
    image = Image(np.zeros((16, 16, 3), np.uint8))
    drawn = replace(image, role="assistant")
    page = [one for k in range(20) for one in (Text(f"page {k} of words\n" * (k % 3)), image)]
    asked = (Text("it is so", "system"), Text("draw this", "user", 0), drawn, Text("no", "user", 0))
    with ShardWriter(tmp_path) as writer:
        writer.write("page", Document(tuple(page)))
        writer.write("talk", Document((*asked[:1], *asked[1:] * 12)))
    (path,) = find_shards(tmp_path)
    found = measure_shard(path, LengthEstimator(sequencer(INPUTS[name]), 100, PATCHES))
    assert found.notes["cut"] == 2 and not found.bad
    lengths_n4 = found.records["lengths"]
    assert lengths_n4.max() <= 100
    assert np.partition(lengths_n4[:, 0], 2)[2] > 50, "but for the last pieces"


# --- rows -----------------------------------------------------------------------------------------


def sample(index: int) -> Document:
    """A drawing after a drawing, or a question."""
    image = Image(np.full((16, 16, 3), index, np.uint8), role="assistant")
    if index % 2:
        words = Text(f"draw #{index};", "user", 0), Text("so:", "assistant")
        return Document((*words, image, Text("and", "assistant"), image))
    shown = replace(image, role="user", weight=0.0)
    return Document((shown, Text("which?", "user", 0), Text(f"#{index};", "assistant")))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceConfig]:
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, max_samples=17) as writer:
        for index in range(40):
            writer.write(str(index), sample(index))
    return {"all": SourceConfig(str(folder))}


def loaded(
    sources: dict[str, SourceConfig], inputs: ImageInputs, count: int, **more: int
) -> list[Batch]:
    loader = Loader(sources, sequencer(inputs), Means(), CONFIG, **more)
    return [batch for batch, _ in islice(loader, count)]


def test_the_index_is_measured_for_each_head(sources: dict[str, SourceConfig]) -> None:
    paths = find_shards(Path(sources["all"].shards))
    plain, longer = (
        measure(paths, LengthEstimator(sequencer(inputs), 128, PATCHES))
        for inputs in (NextCodeInputs(), Twice())
    )
    assert plain.folder != longer.folder
    difference_n4 = longer.records["lengths"].astype(int) - plain.records["lengths"]
    assert np.unique(difference_n4).tolist() == [0, 8], "two learned images of 2 x 2 codes"
    assert (difference_n4 == (longer.records["images"] - plain.records["images"])[:, None]).all()


def test_rows_hold_what_is_learned_twice(sources: dict[str, SourceConfig]) -> None:
    pad = VOCABULARY.special("pad")
    learned = 0
    for batch in loaded(sources, Twice(), 10):
        for at, spans in enumerate(batch.spans):
            noised = [span for span in spans if span.latents is not None]
            private_T = torch.zeros_like(batch.private[at])
            for span in noised:
                learned += 1
                mine = slice(span.start, span.stop)
                codes = slice(span.stop, span.stop + 6)  # two rows of two, and their ends
                assert (batch.ids[at, mine] == pad).all() and span.has_content
                assert (batch.modality[at, mine] == IMAGE).all()
                ids_n = batch.ids[at, codes]
                ids_n = ids_n[torch.from_numpy(VOCABULARY.is_code(ids_n.numpy()))]
                assert torch.equal(batch.labels[at, mine], ids_n)
                assert batch.positions[at, span.start] == batch.positions[at, span.stop]
                assert len(set(batch.private[at, mine].tolist())) == 1
                assert np.array_equal(span.latents, noise(span.key, span.grid.size))
                private_T[mine] = batch.private[at, mine]
            assert torch.equal(private_T, batch.private[at]) and len(spans) > len(noised) / 2
            assert torch.equal(batch.private[at] > 0, batch.block[at] > 0)
            starts = [span.start for span in noised]
            numbers = torch.stack([batch.doc[at, starts], batch.private[at, starts]])
            assert numbers.unique(dim=1).shape[1] == len(noised), (
                "images of a document have numbers of their own"
            )
    assert learned > 40


def test_text_after_an_image_stands_where_it_stands_without_the_head() -> None:
    document = Document(tuple(Means().encode([p])[0] if isinstance(p, Image) else p
                              for p in sample(1).parts))  # fmt: skip
    plain, longer = (sequencer(one).sequence(document) for one in (NextCodeInputs(), Twice()))
    public = longer.private == 0
    for name in ("ids", "positions"):
        assert np.array_equal(getattr(longer, name)[public], getattr(plain, name)), name


def test_noise_is_a_function_of_seed_pass_and_image(sources: dict[str, SourceConfig]) -> None:
    spans = [span for batch in loaded(sources, Twice(), 30) for row in batch.spans for span in row]
    keys = [tuple(map(int, span.key)) for span in spans if span.latents is not None]
    assert len(set(keys)) == len(keys) > 100
    assert len({key[-2] for key in keys}) == 20, "units"
    assert {key[-1] for key in keys} == {2, 4}, "parts"
    assert {key[0] for key in keys} == {CONFIG.seed}


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_build_the_same_rows(sources: dict[str, SourceConfig], world: int) -> None:
    whole = loaded(sources, Twice(), 6)
    ranks = [loaded(sources, Twice(), 6, rank=rank, world_size=world) for rank in range(world)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        for name in Batch.tensors():
            joined = torch.stack([getattr(part, name) for part in parts], dim=1).flatten(0, 1)
            assert torch.equal(joined, getattr(batch, name)), name
        spans = [part.spans[at] for at in range(4 // world) for part in parts]
        assert repr(spans) == repr(list(batch.spans))


@pytest.mark.slow
def test_worker_processes_build_the_same_rows(sources: dict[str, SourceConfig]) -> None:
    for one, other in zip(
        loaded(sources, Twice(), 4), loaded(sources, Twice(), 4, workers=2), strict=True
    ):
        assert torch.equal(one.ids, other.ids) and repr(one.spans) == repr(other.spans)


def test_images_that_a_source_does_not_learn_stand_once(sources: dict[str, SourceConfig]) -> None:
    unlearned = {"all": replace(sources["all"], image_weight=0.0)}
    for batch, plain in zip(
        loaded(unlearned, Twice(), 4), loaded(unlearned, NextCodeInputs(), 4), strict=True
    ):
        assert not batch.private.any() and torch.equal(batch.ids, plain.ids)


def test_digests_hold_the_noise(sources: dict[str, SourceConfig]) -> None:
    def found(inputs: ImageInputs, world_size: int = 1) -> str:
        return digest(Feed(sources, sequencer(inputs), Means(), CONFIG), world_size, 0, 12)

    @dataclass(frozen=True)
    class Louder(Twice):
        def __call__(self, *words: object) -> ImageTokens:
            made = super().__call__(*words)
            spans = (
                replace(one, latents=2 * one.latents) if one.latents is not None else one
                for one in made.spans
            )
            return replace(made, spans=tuple(spans))

    assert found(Twice()) == found(Twice(), 2) == found(Twice(), 4)
    assert len({found(Twice()), found(Louder()), found(NextCodeInputs())}) == 3
