"""The scale head: what is read at each scale, who sees it, its loss, drawings against an oracle.

The oracle of a drawing is VAR's loop over whole training rows, read at once under a dense mask.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from head_models import (
    drawn,
    hidden_of,
    picked_from,
    picture,
    private_logits,
    request,
    rows_of,
    sampled,
    talk,
)
from scale_models import GRID, scale_model

from unimodal.document import Document, Image, Text
from unimodal.events import ImageDone, ImageProgress
from unimodal.generation import Generation, generate, stream
from unimodal.heads import scale
from unimodal.heads.scale_maps import check_scales, places, scale_after, shown, sides_after
from unimodal.model import Model
from unimodal.sampling import Sampling, noise
from unimodal.sequence import IGNORE, IMAGE, TEXT, Batch, Row, Sequence, span_mask
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.quantizers.config import QuantizerConfig, VqConfig
from unimodal.train.objectives import LossConfig, language

CPU = torch.device("cpu")
VAR_SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


@pytest.fixture(scope="module")
def model() -> Model:
    return scale_model()


@pytest.fixture(scope="module", params=[False, True], ids=["rows", "factorised"])
def either(request: pytest.FixtureRequest) -> Model:
    return scale_model(addresses=not request.param, factorised=request.param)


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [(16, 16), (8, 32)])
def test_what_codes_show_is_vars_accumulation(sides: tuple[int, int]) -> None:
    """By the quantizer's own decoder of a prefix, averaged over the next grid (float32)."""
    quantizer = QuantizerConfig(vq=VqConfig(64, 4), scales=VAR_SIDES).build(0).eval()
    grid = quantizer.grid_of(Grid(*sides))
    codes = torch.randint(0, 64, (grid.size,), generator=torch.Generator().manual_seed(0))
    vectors = quantizer.codebook.codebook[codes]
    for known, count in enumerate((0, *grid.counts)):
        found = shown(grid, count, CPU) @ vectors[:count]
        rows, columns = sides_after(grid, count)
        assert (rows, columns) == grid.scales[min(known, len(grid.scales) - 1)]
        assert scale_after(grid, count) == (known + 1) % (len(grid.scales) + 1)
        if not count:
            assert not found.any() and len(found) == rows * columns
            continue
        whole = quantizer.decode(codes[None, :count, None], grid)
        expected = F.adaptive_avg_pool2d(whole.movedim(-1, 1), (rows, columns)).movedim(1, -1)
        torch.testing.assert_close(found, expected[0].flatten(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [0, *GRID.counts])
def test_what_a_drawing_kept_can_be_learned_with(count: int) -> None:
    """Of no codes too: the first scale is read in every image that is learned."""
    shown.cache_clear()
    with torch.inference_mode():
        kept_mc = shown(GRID, count, CPU)
    vectors_cD = torch.randn(count, 3, requires_grad=True)
    (kept_mc @ vectors_cD).sum().backward()
    assert vectors_cD.grad is not None and vectors_cD.grad.shape == (count, 3)


def test_places_are_the_middles_of_cells() -> None:
    assert places(GRID).tolist()[:5] == [[1, 2], [0, 1], [0, 3], [2, 1], [2, 3]]
    np.testing.assert_array_equal(places(GRID)[5:], Grid(3, 4).addresses)


def test_scales_are_private_blocks_at_the_positions_of_their_sum(model: Model) -> None:
    sequence = model.sequencer.sequence(talk(model), key=(3,))
    plain = model.sequencer.sequence(talk(model, weight=0.0))
    n, m = model.grid.size, 12
    private = sequence.private > 0
    assert len(sequence) == model.sequencer.measure(talk(model))[None] == len(plain) + 2 * n
    assert len(plain) == model.sequencer.measure(talk(model, weight=0.0))[None]
    for name in ("ids", "positions", "address"):  # without the scales it is that of a chat
        np.testing.assert_array_equal(getattr(sequence, name)[~private], getattr(plain, name))
    np.testing.assert_array_equal(sequence.block[~private] > 0, plain.block > 0)
    seen = span_mask(*(torch.from_numpy(x)[None] for x in (
        np.zeros(len(sequence), int), sequence.block, sequence.private)))[0].numpy()  # fmt: skip
    for number in (1, 2):
        mine = np.flatnonzero(sequence.private == number)
        whole = np.arange(mine[-1] + 1, mine[-1] + 1 + m)
        assert len(mine) == n
        one, two, three = np.split(mine, [1, 5])
        assert seen[np.ix_(two, two)].all() and seen[np.ix_(three, three)].all()
        assert seen[np.ix_(two, one)].all() and seen[np.ix_(three, [*one, *two])].all()
        assert not seen[np.ix_(one, [*two, *three])].any() and not seen[np.ix_(two, three)].any()
        others = np.setdiff1d(np.arange(len(sequence)), mine)
        assert not seen[np.ix_(others, mine)].any(), "nothing else sees a scale"
        assert not seen[np.ix_(mine, whole)].any(), "nor does one see what it is to find out"
        assert seen[np.ix_(whole, whole)].all() and seen[whole[-1] + 1 :, whole].all()
        np.testing.assert_array_equal(sequence.positions[three], sequence.positions[whole])
        np.testing.assert_array_equal(sequence.address[three], sequence.address[whole])
        assert sequence.positions[one[0]] == sequence.positions[whole[6]], "the middle of 3 x 4"
        np.testing.assert_array_equal(sequence.address[one[0]], (2, 3))
        codes = picture(model, number).codes[:, 0]
        np.testing.assert_array_equal(sequence.labels[mine], model.vocabulary.code_to_id(codes))
        assert (sequence.modality[mine] == IMAGE).all()
        assert (sequence.labels[whole[:-1]] == IGNORE).all()
    assert (sequence.modality[~private] != IMAGE).all()
    assert not ((sequence.modality == TEXT) & private).any()


@torch.no_grad()
def test_no_scale_is_read_with_its_own_codes(model: Model) -> None:
    """Codes of a scale change what is read at later ones, and of the rest what is read of all."""
    first, total = picture(model, 1), model.grid.counts
    learned = model.sequencer.sequence(Document((first,)))
    (start,) = np.flatnonzero(learned.private > 0)[:1]
    before = hidden_of(model, learned)
    for known, count in enumerate(total):
        codes = first.codes.copy()
        codes[count - 1] = (codes[count - 1] + 1) % 64
        other = model.sequencer.sequence(Document((replace(first, codes=codes),)))
        is_same = (hidden_of(model, other) == before).all(-1).numpy()
        assert is_same[: start + count].all(), "nothing up to this scale"
        assert not is_same[start + count : start + total[-1]].any() or known == 2
        assert not is_same[start + total[-1] :].any(), "and all behind the image"


@torch.no_grad()
def test_given_codes_enter_as_the_sum_of_their_rows(model: Model) -> None:
    """What the embedder adds up is what the image's decoder would be given, in other vectors."""
    image = picture(model, 0, "user", 0.0)
    sequence = model.sequencer.prompt(Document((image, Text("what?", role="user"))))
    at = sequence.block > 0
    assert not sequence.private.any() and at.sum() == 12
    batch, transformer = rows_of(sequence), model.transformer
    embedded = transformer.embed(batch.ids)
    found = transformer.embedder(embedded, batch, transformer.embed(
        transformer.embedder.more_ids(batch)))[0]  # fmt: skip
    torch.testing.assert_close(found[~at], embedded[0, ~at], rtol=0, atol=0)
    total = torch.zeros(1, 32, 3, 4)
    rows = transformer.model.embed_tokens.weight[model.vocabulary.code_to_id(image.codes[:, 0])]
    for (height, width), own in zip(GRID.scales, rows.split([1, 4, 12]), strict=True):
        small = own.T.view(1, 32, height, width)
        total += small if height == 3 else F.interpolate(small, (3, 4), mode="nearest")
    expected = total[0].flatten(1).T + transformer.embedder.scales.weight[0]
    expected += transformer.embedder.rows.weight[1:4].repeat_interleave(4, 0)
    expected += transformer.embedder.columns.weight[1:5].repeat(3, 1)
    torch.testing.assert_close(found[at], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_each_scale_enters_with_its_number(model: Model) -> None:
    """Two images in two rows: what is added to what their codes show."""
    images = [picture(model, seed) for seed in (1, 2)]
    sequences = [model.sequencer.sequence(Document((Text("a" * k), image)))
                 for k, image in enumerate(images)]  # fmt: skip
    length, transformer = max(map(len, sequences)), model.transformer
    batch = Batch.stack([Row.pack([one], length, 0) for one in sequences])
    embedder = transformer.embedder
    more = transformer.embed(embedder.more_ids(batch))
    found = embedder(transformer.embed(batch.ids), batch, more)
    table, numbers = transformer.model.embed_tokens.weight, [0, 1, 5]
    for row, image in zip(found, images, strict=True):
        at = batch.private[images.index(image)] > 0
        rows = table[model.vocabulary.code_to_id(image.codes[:, 0])]
        expected = torch.cat([shown(GRID, count, CPU) @ rows[:count] for count in numbers])
        expected += embedder.scales.weight[torch.tensor([1, *[2] * 4, *[3] * 12])]
        expected += embedder.rows.weight[places(GRID)[:, 0] + 1]
        expected += embedder.columns.weight[places(GRID)[:, 1] + 1]
        torch.testing.assert_close(row[at], expected, rtol=1e-4, atol=1e-5)


# --- the loss -----------------------------------------------------------------------------------


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_all_scales(either: Model) -> None:
    sequence = either.sequencer.sequence(talk(either), key=(3,))
    found = language(either.transformer, rows_of(sequence), LossConfig(text=0.0))
    hidden, table = hidden_of(either, sequence), either.transformer.output_table()
    first, last = either.vocabulary.code_slice
    codes = np.concatenate([picture(either, seed).codes[:, 0] for seed in (1, 2)])
    at = np.flatnonzero(sequence.private > 0)
    expected = F.cross_entropy(hidden[at] @ table[first:last].T, torch.from_numpy(codes))
    torch.testing.assert_close(found.total, expected, rtol=1e-5, atol=1e-6)
    assert found.sums["targets_image"] == len(at) == 2 * 17


# --- drawing ------------------------------------------------------------------------------------


@torch.no_grad()
def logits_of(model: Model, document: Document, codes: np.ndarray, sampling: Sampling):
    """The logits (n, C) of every place, of a training row under the dense mask."""
    image = replace(picture(model, 0), codes=codes[:, None])
    answered = Document((*document.parts, image))
    drops = (None, "text") if sampling.guided else (None,)
    return private_logits(
        model, [model.sequencer.sequence(answered, one) for one in drops], sampling
    )


def oracle(model: Model, document: Document, sampling: Sampling) -> list[int]:
    """VAR's loop: each scale from a whole row whose codes of this and later scales say nothing."""
    begun = 3  # ids of the reply before the image: its opening
    codes, known = np.zeros(model.grid.size, np.int64), 0
    for number, count in enumerate(model.grid.counts):
        logits = logits_of(model, document, codes, sampling)
        for place in range(known, count):
            u = noise(sampling.seed, begun + place - known, number)
            codes[place] = sampled(logits[place], u, sampling)
        known = count
    return codes.tolist()


SETTINGS = [
    Sampling(seed=1),
    Sampling(seed=2, guidance=3.0),
    Sampling(seed=3, image_temperature=0.0, guidance=0.0),
    Sampling(seed=4, image_top_k=5),
    Sampling(seed=5, image_top_p=0.8, image_temperature=1.5, guidance=1.5),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=lambda one: str(one.seed))
def test_a_drawing_is_that_of_the_oracle(either: Model, sampling: Sampling) -> None:
    document = Document((picture(either, 8, "user", 0.0), Text("draw it anew", role="user")))
    assert drawn(either, [document], [sampling])[0] == oracle(either, document, sampling)


@torch.no_grad()
def test_cached_passes_see_the_logits_of_teacher_forcing(model: Model, monkeypatch) -> None:
    passes = picked_from(monkeypatch, scale)
    sampling, document = Sampling(seed=2, guidance=2.0), request("draw")
    (image,) = drawn(model, [document], [sampling])
    forced = logits_of(model, document, np.array(image), sampling)
    assert [len(one) for one in passes] == [1, 4, 12], "one pass a scale"
    torch.testing.assert_close(torch.cat(passes), forced, atol=1e-4, rtol=0)


def test_partial_images_are_streamed(model: Model) -> None:
    """After each scale what it and those before it show, as pixels too."""
    events = list(stream(model, [request("draw")], Sampling(seed=6, guidance=2.0), "image"))
    progress = [event for event in events if isinstance(event, ImageProgress)]
    (done,) = [event.image for event in events if isinstance(event, ImageDone)]
    assert [(one.done, one.total) for one in progress] == [(1, 17), (5, 17), (17, 17)]
    pixels = model.codec.decode([one.partial for one in progress])
    for one, shown_then in zip(progress, pixels, strict=True):
        np.testing.assert_array_equal(one.partial.codes, done.codes[: one.done])
        assert shown_then.pixels.shape == (24, 32, 3)
        vectors = model.image_tokenizer.quantizer.decode(
            torch.from_numpy(one.partial.codes)[None], model.grid
        )
        image = model.image_tokenizer.decoder(vectors.movedim(-1, 1)).clamp(-1, 1)[0]
        expected = (image.detach().movedim(0, -1).numpy() + 1) * 127.5
        assert np.abs(expected - shown_then.pixels).max() <= 0.51


@torch.no_grad()
def test_the_cache_is_made_for_a_drawing_at_once(model: Model) -> None:
    """All scales lie in it beside each other: more tokens than the image has in the end."""
    generation = Generation(model)
    generation.submit(request("draw"), Sampling(guidance=2.0), "image")
    generation.step()
    before = generation._branches._cache.capacity
    list(generation.run())
    assert generation._branches._cache.capacity == before


# --- what is refused ----------------------------------------------------------------------------


def test_grids_that_do_not_fit_are_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="3 x 4 codes of one scale: the head scale reads several"):
        check_scales(Grid(3, 4))
    quantizer = model.image_tokenizer.quantizer
    with pytest.raises(ValueError, match=r"2 x 2 codes are 1 x 1, 1 x 1, 2 x 2: each needs more"):
        check_scales(quantizer.grid_of(Grid(2, 2)))
    with pytest.raises(ValueError, match="33 scales: the head scale has at most 32"):
        check_scales(Grid(33, 33, tuple((k, k) for k in range(1, 34))))
    for grid, count in ((Grid(3, 4), 12), (model.grid, 5)):
        image = Image(codes=np.zeros((count, 1), np.int64), grid=grid, codec_hash=model.codec.hash)
        with pytest.raises(ValueError, match="of one scale|one code for each place of each scale"):
            model.sequencer.image(image)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"image_steps": 4}, "the image head scale has no image_steps 4: leave it out"),
        ({"image_solver": "heun"}, "scale has no image_solver heun"),
        ({"guidance_interval": (0.1, 0.8)}, r"scale has no guidance_interval \(0.1, 0.8\)"),
    ],
)
def test_settings_of_other_heads_are_refused(model: Model, settings: dict, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        generate(model, [request("draw")], Sampling(**settings))


def test_rows_of_damaged_weights_are_refused(model: Model) -> None:
    broken = scale_model()
    with torch.no_grad():
        broken.transformer.lm_head.weight[-1] = torch.nan
    with pytest.raises(ValueError, match="logits are not finite"):
        generate(broken, [request("draw")], Sampling(), "image")


def test_a_sequence_is_measured_without_its_codes(model: Model) -> None:
    sequence: Sequence = model.sequencer.sequence(talk(model))
    assert sum(span.codes.size for span in sequence.spans) == 2 * (0 + 1 + 5 + 17)
