"""What tests of several image heads share: weights, documents, rows read at once, drawings."""

from dataclasses import replace
from functools import partial
from types import ModuleType

import numpy as np
import pytest
import torch
from tiny_models import tiny

from unimodal.architecture import Architecture, ImageConfig
from unimodal.attention import DenseAttention
from unimodal.branch import Branch
from unimodal.branches import Branches
from unimodal.document import Document, Image, Text
from unimodal.generation import generate
from unimodal.heads.head import Drawing
from unimodal.model import Model
from unimodal.sampling import Sampling, noises, normal_noise, probabilities
from unimodal.sequence import Batch, Row, Sequence, span_mask
from unimodal.tokenizer.grid import Grid
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary


def lively(transformer: UnifiedModel, head_std: float = 0.5) -> UnifiedModel:
    """Give it large random matrices, so that its distributions are far from uniform."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if parameter.ndim == 2 and "layernorm" not in name:
                std = head_std if name.startswith("lm_head") else 0.3
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
            if "residual_lambdas" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return transformer.eval()


def next_code_model(
    num_codes: int, grid: Grid, addresses: bool, two_way: bool = False, **parts: bool
) -> Model:
    """Untied, with rows of unequal lengths, so that its distributions are far from uniform.

    parts: optional parts of the transformer.
    """
    base = tiny(width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_width=8, mlp_width=64)
    vocabulary = Vocabulary.new(base.vocabulary.num_text, num_codes)
    shape = {"num_ids": vocabulary.size, "tied_head": False, **parts}
    config = replace(base.transformer.config, **shape)
    image = ImageConfig("next_code", addresses=addresses, two_way=two_way)
    transformer = lively(UnifiedModel(Architecture(config, vocabulary, image)), 0.35)
    return replace(base, transformer=transformer, grid=grid)


def request(words: str) -> Document:
    return Document((Text(words, role="user"),))


def picture(model: Model, seed: int, role: str = "assistant", weight: float = 1.0) -> Image:
    """An image of random codes, or of random latents where the model reads those."""
    rng, head = np.random.default_rng(seed), model.transformer.head
    if head.reads_latents:
        width = model.transformer.architecture.image.latent_width
        content = {"latents": rng.standard_normal((model.grid.size, width)).astype(np.float32)}
    else:
        content = {"codes": rng.integers(0, model.vocabulary.num_codes, (model.grid.size, 1))}
    return Image(**content, grid=model.grid, codec_hash=model.codec.hash, role=role, weight=weight)


def talk(model: Model, weight: float = 1.0) -> Document:
    """A drawing, an edit and words behind it; `weight`: that of the images."""
    return Document((
        Text("draw", role="user"), picture(model, 1, weight=weight),
        Text("make it blue", role="user"), picture(model, 2, weight=weight),
        Text("here it is", role="assistant"),
    ))  # fmt: skip


def rows_of(sequence: Sequence) -> Batch:
    return Batch.stack([Row.pack([sequence], len(sequence), 0)])


def hidden_of(model: Model, given: Sequence | Batch) -> torch.Tensor:
    """The hidden vectors (T, D) of a sequence or one row, read at once under the dense mask."""
    batch = rows_of(given) if isinstance(given, Sequence) else given
    attend = DenseAttention(span_mask(batch.doc, batch.block, batch.private))
    return model.transformer.hidden_states(batch, batch.positions, attend)[0]


def drawn(model: Model, documents: list[Document], samplings: list[Sampling]) -> list[list[int]]:
    """The codes of the image that answers each document."""
    replies = generate(model, documents, samplings, "image")
    return [image.codes[:, 0].tolist() for (image,) in replies]


def private_logits(model: Model, sequences: list[Sequence], sampling: Sampling) -> torch.Tensor:
    """The logits (n, C) of the codes of a private copy, read at once.

    sequences: the training row and, with guidance, that without the user's words.
    """
    first, last = model.vocabulary.code_slice
    found = [
        hidden_of(model, sequence)[torch.from_numpy(sequence.private > 0)]
        @ model.transformer.output_table()[first:last].T
        for sequence in sequences
    ]
    if len(found) == 1:
        return found[0]
    # arXiv:2207.12598, eq. 6
    return found[1] + sampling.guidance * (found[0] - found[1])


def picked_from(monkeypatch: pytest.MonkeyPatch, file: ModuleType) -> list[torch.Tensor]:
    """Return a list to which each call of `pick` in the file of a head adds its logits."""
    seen: list[torch.Tensor] = []
    original = file.pick

    def noted(logits: torch.Tensor, *more: object) -> torch.Tensor:
        seen.append(logits)
        return original(logits, *more)

    monkeypatch.setattr(file, "pick", noted)
    return seen


def sampled(logits_C: torch.Tensor, uniform: float, sampling: Sampling) -> int:
    """The code that a uniform number samples."""
    if sampling.image_temperature == 0:
        return int(logits_C.argmax())
    (share_C,) = probabilities(
        logits_C[None], sampling.image_temperature, sampling.image_top_k, sampling.image_top_p
    ).numpy()
    return int(np.searchsorted(share_C.cumsum(), uniform * share_C.sum(), side="right"))


def draw_by_hand(model: Model, branches: Branches, branch: Branch, opened: int) -> Image:
    """Draw an image at the end of a branch, as a request does; the last tokens stay queued."""
    drawing = Drawing(
        model.sequencer.layout, model.grid, Sampling(), opened,
        partial(noises, 0, 0), partial(normal_noise, 0, 0), model.codec.hash, lambda: 1,
    )  # fmt: skip
    head, table = model.transformer.head, model.transformer.output_table()
    draw, found = head.draw(drawing), None
    while True:
        try:
            ask = draw.send(found)
        except StopIteration as end:
            return end.value
        found = None
        branch.add_read(ask.reads[None])
        if ask.look is not None:
            branches.read([branch])
            hidden = branches.last([branch], ask.num_hidden)
            (found,) = ask.look(head, table, (hidden,), ask.settings, [ask.arg])


def deviation(observed: np.ndarray, expected: np.ndarray) -> float:
    """By how many standard deviations the chi-square statistic exceeds its mean."""
    rare = expected < 5
    expected = np.append(expected[~rare], expected[rare].sum())
    observed = np.append(observed[~rare], observed[rare].sum())
    fine = expected > 0
    assert not observed[~fine].any(), "what cannot be never came"
    freedom = fine.sum() - 1
    statistic = ((observed - expected)[fine] ** 2 / expected[fine]).sum()
    return float(statistic - freedom) / (2 * freedom) ** 0.5
