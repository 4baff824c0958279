"""Heads that predict codes by their levels, against distributions that are written out in full."""

from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unimodal.architecture import Architecture, ImageConfig
from unimodal.code_levels import CodeLevels
from unimodal.document import Document, Image, Text
from unimodal.embedder import LevelEmbedder
from unimodal.generation import generate
from unimodal.heads import head_class
from unimodal.heads.levels import LevelsHead, pick_levels
from unimodal.model import Model
from unimodal.sampling import Sampling, guide, probabilities
from unimodal.sequence import IGNORE, IMAGE, TEXT, Batch, Row, Sequence
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.patches import PatchesConfig
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.quantizers.config import (
    BsqConfig,
    FsqConfig,
    LfqConfig,
    QuantizerConfig,
)
from unimodal.train.objectives import LossConfig, language
from unimodal.transformer import TransformerConfig
from unimodal.unified import UnifiedModel, parameter_shapes
from unimodal.vocabulary import Vocabulary

HEADS = ("independent_levels", "causal_levels")
LEVELS = (3, 2, 4)
NUM_CODES = prod(LEVELS)
# Text 0 to 19, special tokens in it, and the codes in two runs, one of them among the texts.
SCATTERED = Vocabulary(20, {"pad": 3, "image": 9}, ((30, NUM_CODES - 5), (12, 5)))
PLAIN = Vocabulary.new(20, NUM_CODES)
D = 6


def shape_of(
    head: str, vocabulary: Vocabulary = PLAIN, levels: tuple[int, ...] = LEVELS, **image: bool
) -> Architecture:
    made = ImageConfig(head, levels, code_rows=False, **image)
    config = TransformerConfig(
        num_ids=vocabulary.num_words, width=D, num_layers=1, num_heads=1, num_kv_heads=1,
        head_width=D, mlp_width=8,
    )  # fmt: skip
    return Architecture(config, vocabulary, made)


def head_of(name: str, vocabulary: Vocabulary = PLAIN, seed: int = 0) -> LevelsHead:
    """A head of random weights of ordinary size, float64."""
    head = head_class(name)(shape_of(name, vocabulary)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return head


def hidden(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, D, generator=generator, dtype=torch.float64)


def values_of(code: int) -> list[int]:
    """The first level is the lowest digit."""
    found = []
    for count in LEVELS:
        code, value = divmod(code, count)
        found.append(value)
    return found


def enumerated(head: LevelsHead, hidden_MD: Tensor) -> Tensor:
    """log p of every code (M, C): each level is asked for by itself, one code at a time."""
    columns = []
    for code in range(NUM_CODES):
        values, total = values_of(code), torch.zeros(len(hidden_MD), dtype=torch.float64)
        for k, value in enumerate(values):
            known = torch.tensor([values[:k]], dtype=torch.int64).expand(len(hidden_MD), k)
            (logits,) = head.logits(hidden_MD, known, k)
            assert logits.shape == (len(hidden_MD), LEVELS[k])
            total = total + logits.log_softmax(-1)[:, value]
        columns.append(total)
    return torch.stack(columns, 1)


def batch_of(codes: list[int], vocabulary: Vocabulary) -> Batch:
    """A row of text, then codes with unequal weights."""
    ids = np.concatenate([[1, 2], vocabulary.code_to_id(np.array(codes, np.int64))])
    labels = np.append(ids[1:], IGNORE)
    modality = np.array([TEXT] + [IMAGE] * len(codes) + [0], np.int8)
    weights = np.linspace(0.5, 2.0, len(ids)).astype(np.float32) * (modality > 0)
    sequence = Sequence.causal(ids, labels, weights, modality)
    return Batch.stack([Row.pack([sequence], len(ids) + 1, 0)])


# --- codes and levels ---------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 2**31))
def test_codes_are_numbers_of_their_levels(counts: list[int], seed: int) -> None:
    num = prod(counts)
    cut = seed % num
    runs = tuple(run for run in ((7, num - cut), (7 + num, cut)) if run[1])
    levels = CodeLevels(tuple(counts), runs)
    codes = torch.arange(num)
    values = levels.values(codes)
    assert torch.equal(levels.numbers(values), codes)
    assert ((values >= 0) & (values < torch.tensor(counts))).all()
    places = product(*(range(count) for count in reversed(counts)))  # the last level is the slowest
    assert values.tolist() == [list(reversed(place)) for place in places]
    rows = levels.rows(values)
    for k, where in enumerate(levels.slices):
        assert rows[:, k].unique().tolist() == list(range(where.start, where.stop))
    assert levels.slices[-1].stop == levels.num_rows == sum(counts)


def test_ids_that_are_no_codes_are_told() -> None:
    levels, ids = CodeLevels.of(LEVELS, SCATTERED), torch.arange(SCATTERED.size)
    np.testing.assert_array_equal(levels.codes(ids).numpy(), SCATTERED.code_of_id)


def test_levels_of_other_codes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"levels \(2, 2\) do not make 24 codes"):
        CodeLevels.of((2, 2), PLAIN)
    with pytest.raises(ValueError, match=r"levels \(\) do not make 24 codes"):
        UnifiedModel(shape_of(HEADS[0], levels=()))


@pytest.mark.parametrize(
    "config",
    [QuantizerConfig(fsq=FsqConfig((5, 4, 3))), QuantizerConfig(lfq=LfqConfig(18)),
     QuantizerConfig(bsq=BsqConfig(9))],
    ids=["fsq", "lfq", "bsq"],
)  # fmt: skip
def test_a_level_is_one_number_of_a_quantizers_vector(config: QuantizerConfig) -> None:
    """Codes that differ in one level have vectors that differ in that number alone."""
    quantizer = config.build(0)
    levels = CodeLevels(quantizer.levels, ((0, quantizer.num_codes),))
    values = torch.tensor([[seed * 7 % count for count in quantizer.levels] for seed in range(5)])
    for k, count in enumerate(quantizer.levels):
        other = values.clone()
        other[:, k] = (other[:, k] + 1) % count
        codes = torch.stack([levels.numbers(values), levels.numbers(other)])[..., None]
        one, two = quantizer.decode(codes, Grid(1, 5))[:, 0]
        assert ((one != two) == (torch.arange(one.shape[1]) == k)).all()


# --- what enters --------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [PLAIN, SCATTERED], ids=["plain", "scattered"])
@pytest.mark.parametrize("addresses", [False, True])
def test_a_code_enters_as_the_sum_of_its_levels(vocabulary: Vocabulary, addresses: bool) -> None:
    model = UnifiedModel(shape_of(HEADS[0], vocabulary, addresses=addresses))
    codes = list(range(NUM_CODES))
    batch = batch_of(codes, vocabulary)
    embedder = model.embedder
    assert isinstance(embedder, LevelEmbedder)
    if addresses:
        batch.address[0, 3] = torch.tensor([2, 5])
        with torch.no_grad():
            for table in (embedder.rows, embedder.columns):
                table.weight[1:] = torch.randn(table.weight[1:].shape)
    x_TD = embedder(model.embed(batch.ids), batch)[0]
    torch.testing.assert_close(x_TD[:2], model.model.embed_tokens.weight[[1, 2]])
    for code in codes:
        expected, first = torch.zeros(D), 0
        for value, count in zip(values_of(code), LEVELS, strict=True):
            expected = expected + embedder.table.weight[first + value]
            first += count
        if addresses and code == 1:
            expected = expected + embedder.rows.weight[2] + embedder.columns.weight[5]
        torch.testing.assert_close(x_TD[2 + code], expected)
    grads = torch.autograd.grad(x_TD[2 : 2 + NUM_CODES].sum(), list(model.parameters()), None,
                                allow_unused=True)  # fmt: skip
    of_words = dict(zip([n for n, _ in model.named_parameters()], grads, strict=True))
    assert not of_words["model.embed_tokens.weight"].any(), "codes have no share in text's rows"


def test_a_head_and_tables_that_do_not_fit_are_refused() -> None:
    for name, rows in ((HEADS[0], True), ("next_code", False)):
        shape = shape_of(name)
        with pytest.raises(ValueError, match=f"image head '{name}' with image.code_rows {rows}"):
            UnifiedModel(replace(shape, image=replace(shape.image, code_rows=rows)))


# --- distributions ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("vocabulary", [PLAIN, SCATTERED], ids=["plain", "scattered"])
def test_the_loss_is_that_of_all_codes_written_out(name: str, vocabulary: Vocabulary) -> None:
    head, codes = head_of(name, vocabulary), [*range(NUM_CODES), 3, 17]
    batch = batch_of(codes, vocabulary)
    hidden_ND = hidden(batch.ids.numel()).requires_grad_()
    total, losses_M = head(hidden_ND, torch.empty(0), batch, 0.7)
    log_p_MC = enumerated(head, hidden_ND[1 : 1 + len(codes)])
    one = torch.ones(len(codes), dtype=torch.float64)
    torch.testing.assert_close(log_p_MC.exp().sum(1), one, rtol=1e-12, atol=0)
    expected_M = -log_p_MC[range(len(codes)), codes]
    torch.testing.assert_close(losses_M.double(), expected_M.detach(), rtol=1e-5, atol=1e-5)
    weights_M = batch.weights[0, 1 : 1 + len(codes)].double()
    oracle = 0.7 * (weights_M * expected_M).sum()
    torch.testing.assert_close(total.double(), oracle, rtol=1e-5, atol=1e-5)
    inputs = [hidden_ND, *head.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(total, inputs), torch.autograd.grad(oracle, inputs), strict=True
    ):
        assert theirs.any()
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_factorised_logits_are_one_softmax_over_all_codes() -> None:
    head, hidden_MD = head_of("independent_levels"), hidden(5)
    tables = [head.table[where] for where in head.levels.slices]
    rows_CD = torch.stack([
        sum(table[value] for table, value in zip(tables, values_of(code), strict=True))
        for code in range(NUM_CODES)
    ])  # fmt: skip
    wanted_MC = (hidden_MD @ rows_CD.T).log_softmax(-1)
    torch.testing.assert_close(enumerated(head, hidden_MD), wanted_MC)


def test_a_causal_level_depends_on_those_before_it_alone() -> None:
    head, hidden_MD = head_of("causal_levels"), hidden(1).expand(2, D)
    known = torch.tensor([[0, 1], [2, 1]])
    before, first, second = head.logits(hidden_MD, known, 0)
    assert torch.equal(before[0], before[1])
    assert not torch.isclose(first[0], first[1]).any() and not torch.isclose(*second).any()
    # The order of what is known counts, not its sum: the same two values at other levels.
    swapped = head.logits(hidden_MD, torch.tensor([[0, 1], [1, 0]]), 2)[0]
    assert not torch.isclose(swapped[0], swapped[1]).any()


@pytest.mark.parametrize(("name", "least"), [(HEADS[0], 2 * np.log(2)), (HEADS[1], np.log(2))])
def test_what_levels_have_to_do_with_each_other_is_learned_level_by_level(
    name: str, least: float
) -> None:
    """Of two bits that are always equal, the second costs nothing to who sees the first."""
    torch.manual_seed(0)
    vocabulary = Vocabulary.new(20, 4)
    head = head_class(name)(shape_of(name, vocabulary, (2, 2)))
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    batch = batch_of([0, 3] * 8, vocabulary)
    hidden_ND = hidden(1).float().expand(batch.ids.numel(), D)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(120):
        total, losses_M = head(hidden_ND, torch.empty(0), batch, 1.0)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert abs(float(losses_M.mean()) - least) < 0.03


@pytest.mark.parametrize("name", HEADS)
def test_half_precision_changes_little(name: str) -> None:
    """Softmaxes are float32, whatever matrices are multiplied in."""
    model = UnifiedModel(shape_of(name), seed=1)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(20)
    batch = batch_of([0, 5, 23], PLAIN)
    plain = language(model, batch, LossConfig())
    with torch.autocast("cpu", torch.bfloat16):
        half = language(model, batch, LossConfig())
    assert half.total.dtype == torch.float32
    assert half.reports["loss_image"] == pytest.approx(plain.reports["loss_image"], rel=0.01)
    half.total.backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_a_batch_without_codes_has_gradients_of_zero(name: str) -> None:
    head = head_of(name)
    batch = batch_of([], PLAIN)
    hidden_ND = hidden(batch.ids.numel()).requires_grad_()
    total, losses_M = head(hidden_ND, torch.empty(0), batch, 1.0)
    assert total == 0 and losses_M.shape == (0,)
    for gradient in torch.autograd.grad(total, [hidden_ND, *head.parameters()]):
        assert not gradient.any()


# --- drawing ------------------------------------------------------------------------------------


@torch.no_grad()
def expected_shares(
    head: LevelsHead, branches: list[Tensor], settings: tuple, scale: float | None
) -> np.ndarray:
    """The probability of each code, level by level with guidance, temperature, top k and p."""
    found = []
    for code in range(NUM_CODES):
        values, share = values_of(code), 1.0
        for k, value in enumerate(values):
            known = torch.tensor([values[:k]], dtype=torch.int64).reshape(1, k)
            logits = [head.logits(branch, known, k)[0] for branch in branches]
            one = logits[0] if scale is None else guide(*logits, torch.tensor([[scale]]))
            share *= float(probabilities(one, *settings)[0, value])
        found.append(share)
    return np.array(found)


def chi_square(counts_C: np.ndarray, shares_C: np.ndarray) -> float:
    """In standard deviations above what is expected: sum (n - N p)^2 / (N p) has the mean df and
    the variance 2 df.
    """
    possible = shares_C > 0
    assert not counts_C[~possible].any()
    expected = counts_C.sum() * shares_C[possible]
    df = possible.sum() - 1
    statistic = ((counts_C[possible] - expected) ** 2 / expected).sum()
    return float((statistic - df) / np.sqrt(2 * df))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(
    ("settings", "scale"),
    [((1.0, None, None), None), ((0.7, None, None), 1.8), ((1.3, 2, None), None),
     ((1.0, None, 0.8), 0.5)],
)  # fmt: skip
def test_codes_come_as_often_as_they_should(name: str, settings: tuple, scale: float | None):
    head = head_of(name)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(0.6)
    branches = [hidden(1, seed) for seed in ([5, 6] if scale is not None else [5])]
    shares_C = expected_shares(head, branches, settings, scale)
    assert abs(shares_C.sum() - 1) < 1e-9
    n, rng = 20_000, np.random.default_rng(3)
    args = [(u.tolist(), scale) for u in rng.random((n, len(LEVELS)))]
    repeated = [branch.expand(n, 1, D) for branch in branches]
    with torch.no_grad():
        codes = pick_levels(head, torch.empty(0), repeated, settings, args)
    counts_C = np.bincount(codes, minlength=NUM_CODES)
    assert abs(chi_square(counts_C, shares_C)) < 5
    other_C = np.roll(np.where(shares_C > 0, shares_C, 1e-3), 1)
    assert chi_square(counts_C, other_C / other_C.sum()) > 50, "it tells distributions apart"


@pytest.mark.parametrize("name", HEADS)
def test_the_likeliest_values_are_taken_without_temperature(name: str) -> None:
    head, hidden_RD = head_of(name), hidden(4)
    with torch.no_grad():
        codes = pick_levels(
            head, torch.empty(0), [hidden_RD[:, None]], (0.0, None, None), [([0.5] * 3, None)] * 4
        )
        for code, row in zip(codes, hidden_RD, strict=True):
            for k, value in enumerate(values := values_of(code)):
                known = torch.tensor([values[:k]], dtype=torch.int64).reshape(1, k)
                assert int(head.logits(row[None], known, k)[0].argmax()) == value


@pytest.mark.parametrize("name", HEADS)
def test_damaged_weights_are_named(name: str) -> None:
    head = head_of(name)
    with pytest.raises(ValueError, match="logits are not finite"):
        pick_levels(
            head, torch.empty(0), [hidden(1)[:, None] * torch.nan], (1.0, None, None),
            [([0.5] * 3, None)],
        )  # fmt: skip


# --- large codebooks ----------------------------------------------------------------------------

BITS = 18


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, Tensor):
                self.numel = max(self.numel, one.untyped_storage().nbytes() // one.element_size())
        return found


def large(model: Model, name: str) -> Model:
    """A tiny model over 2^18 codes of an LFQ tokenizer."""
    tokenizer = ImageTokenizer(
        TokenizerConfig(
            quantizer=QuantizerConfig(lfq=LfqConfig(BITS)),
            patches=PatchesConfig(encoder_width=8, decoder_width=8, num_blocks=1, pixel_width=4),
        )
    ).eval()
    vocabulary = Vocabulary.new(model.vocabulary.num_text, tokenizer.num_codes)
    config = replace(model.transformer.config, num_ids=vocabulary.num_words)
    image = ImageConfig(name, tokenizer.levels, code_rows=False)
    transformer = UnifiedModel(Architecture(config, vocabulary, image)).eval()
    return replace(model, transformer=transformer, image_tokenizer=tokenizer)


@pytest.mark.parametrize("name", HEADS)
def test_nothing_is_as_large_as_the_codebook(tiny_model: Model, name: str) -> None:
    model = large(tiny_model, name)
    shapes = parameter_shapes(model.transformer.architecture)
    assert model.vocabulary.num_codes == 2**BITS
    assert max(map(prod, shapes.values())) < 2**BITS / 8
    rows = {shape[0] for key, shape in shapes.items() if key.endswith("table.weight")}
    assert rows == {2 * BITS}
    rng = np.random.default_rng(0)
    image = Image(
        codes=rng.integers(0, 2**BITS, (model.grid.size, 1)), grid=model.grid,
        codec_hash=model.image_tokenizer.hash, role="assistant",
    )  # fmt: skip
    question = Document((Text("draw", role="user"),))
    sequence = model.sequencer.sequence(Document((*question.parts, image)))
    batch = Batch.stack([Row.pack([sequence], len(sequence), 0)])
    with Largest() as largest:
        losses = language(model.transformer, batch, LossConfig())
        losses.total.backward()
        trained = largest.numel
        ((drawn,),) = generate(model, [question], Sampling(seed=1, guidance=2.0), "image")
    assert isinstance(drawn, Image) and int(drawn.codes.max()) >= 2**15
    assert batch.ids.numel() * model.transformer.config.width < trained < 2**BITS / 8
    assert largest.numel < 2**BITS / 4
    assert abs(losses.reports["loss_image"] - BITS * np.log(2)) < 0.5, "18 bits at random"
