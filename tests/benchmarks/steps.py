"""A training step on packed rows of text and images, against transformers' Llama of the same
shape, weights and rows.

The peer is what its user would write: position_ids, a block-diagonal mask for SDPA (made before the
clock runs) and the loss that the model returns, over the whole vocabulary. Both take the same AdamW
step. Ours is timed with the loss that training uses, sliced by modality; that it computes the same
is checked with sliced=False: the same loss and gradients as the peer's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from batches import learned
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from unimodal.architecture import Architecture
from unimodal.sequence import IGNORE, IMAGE, PADDING, Batch, Row, Sequence, span_mask
from unimodal.train.objectives import LossConfig, language
from unimodal.transformer import TransformerConfig
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary

from .measured import Line, interleaved, ratios, spread

FASTER, SAME = 1.2, 1e-5  # the bars
SIDES = (8, 12, 16)  # codes of an image
TEXT_SHARES = (0.3, 1.03)  # a text has as many ids for each code: 60 % of positions are codes
LR = 1e-5
SEED = 6  # of rows whose share of codes is 60 % at the default size


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    vocabulary: Vocabulary = Vocabulary.new(32_000, 34_000)
    width: int = 512
    num_layers: int = 8
    rows: int = 2
    sequence_length: int = 1024
    loss_positions: int = 8192
    checked_positions: int = 512
    """Of the loss, in float64."""
    repeats: int = 3
    saved: int = 50_000_000
    """Weights of a state that is saved, each with two moments,"""
    matrices: int = 50
    """in so many matrices."""

    @property
    def shape(self) -> Architecture:
        """Return the shape of a small Llama."""
        heads = self.width // 64
        transformer = TransformerConfig(
            self.vocabulary.size, self.width, self.num_layers, heads, max(1, heads // 2), 64,
            self.width * 11 // 4, tied_head=False,
        )  # fmt: skip
        return Architecture(transformer, self.vocabulary)


QUICK = Scale(Vocabulary.new(300, 400), 64, 2, 1, 512, 512, 256, 1, 100_000, 10)


def packed(vocabulary: Vocabulary, rows: int, sequence_length: int, seed: int = SEED) -> Batch:
    """Full rows of documents, each a text of random ids and an image of random codes."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rows):
        documents: list[Sequence] = []
        free = sequence_length
        while free:
            documents.append(document(vocabulary, rng, free))
            free -= len(documents[-1])
        found.append(Row.pack(documents, sequence_length, vocabulary.special("pad")))
    return Batch.stack(found)


def document(vocabulary: Vocabulary, rng: np.random.Generator, most: int) -> Sequence:
    """A text and an image in either order, cut to `most` positions; everything is learned."""
    codes = rng.integers(0, vocabulary.num_codes, rng.choice(SIDES) ** 2)
    text = rng.integers(0, vocabulary.num_text, round(len(codes) * rng.uniform(*TEXT_SHARES)))
    parts = [text, vocabulary.code_to_id(codes)]
    ids = np.concatenate(parts if rng.random() < 0.5 else parts[::-1])[:most]
    return learned(vocabulary, ids)


def ours(model: UnifiedModel, batch: Batch, sliced: bool) -> Tensor:
    """Return the loss per target: of both modalities together, as the peer's."""
    config, count = LossConfig(sliced=sliced), float((batch.labels != IGNORE).sum())
    norms = {"text": count, "image": count}
    return language(model, batch, config, norms).total


def twin(model: UnifiedModel) -> LlamaForCausalLM:
    """transformers' Llama of the same shape with the same weights."""
    shape = model.config
    config = LlamaConfig(
        vocab_size=shape.num_ids,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_width,
        rms_norm_eps=shape.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=shape.tied_head,
        attn_implementation="sdpa",
    )
    peer = LlamaForCausalLM(config)
    peer.load_state_dict(model.state_dict())
    return peer.train()


def theirs(peer: LlamaForCausalLM, batch: Batch) -> Callable[[], Tensor]:
    """Gives its loss of the rows."""
    mask_B1TT = span_mask(batch.doc, batch.block, batch.private)[:, None]
    labels_BT = torch.full_like(batch.labels, IGNORE)
    labels_BT[:, 1:] = batch.labels[:, :-1]  # it shifts them itself
    inputs = {
        "input_ids": batch.ids,
        "position_ids": batch.positions,
        "attention_mask": mask_B1TT,
        "labels": labels_BT,
        "use_cache": False,
    }
    return lambda: peer(**inputs).loss


def stepping(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """A whole step: forward, backward, clip, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)

    def step() -> None:
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def difference(model: nn.Module, loss: Tensor, peer: nn.Module, other: Tensor) -> tuple[float, ...]:
    """Of two losses and of all gradients by name, as shares."""
    loss.backward()
    other.backward()
    found = dict(peer.named_parameters())
    pairs = [(p.grad, found[name].grad) for name, p in model.named_parameters()]
    apart = max(float((a - b).norm() / b.norm()) for a, b in pairs if a is not None)
    model.zero_grad()
    peer.zero_grad()
    return abs(loss.item() - other.item()) / abs(other.item()), apart


def lines(scale: Scale) -> list[Line]:
    """With the sliced loss, and with the whole vocabulary's."""
    batch = packed(scale.vocabulary, scale.rows, scale.sequence_length)
    model = UnifiedModel(scale.shape).train()
    peer = twin(model)
    their_loss = theirs(peer, batch)
    of_loss, of_gradients = difference(model, ours(model, batch, sliced=False), peer, their_loss())
    check = (
        f"loss equal to {of_loss:.0e}, gradients to {of_gradients:.0e}, over the whole vocabulary"
    )
    wrong = (check,) if max(of_loss, of_gradients / 10) > SAME else ()
    their_s, sliced_s, whole_s = interleaved(
        scale.repeats,
        stepping(peer, their_loss),
        *(
            stepping(model, lambda sliced=sliced: ours(model, batch, sliced))
            for sliced in (True, False)
        ),
    )
    used = int((batch.doc != PADDING).sum())
    is_image = batch.modality == IMAGE
    what = (
        f"step of {used:,} positions, {is_image.sum() / (batch.labels != IGNORE).sum():.0%} codes"
    )
    size = f"{scale.vocabulary.size:,} ids, {sum(p.numel() for p in model.parameters()) / 1e6:.0f}M"

    def line(name: str, our_s: list[float], bar: bool) -> Line:
        faster = ratios(their_s, our_s)
        speeds = ([used / s for s in seconds] for seconds in (our_s, their_s))
        mine, other = (spread(speed, " positions/s") for speed in speeds)
        met = median(faster) >= FASTER if bar else None
        return Line(
            f"{what}, {size}: {name}", mine, f"transformers {other}", spread(faster),
            f">= {FASTER}, same loss to {SAME:.0e}" if bar else "", met, check, wrong,
        )  # fmt: skip

    return [line("sliced loss", sliced_s, True), line("whole vocabulary", whole_s, False)]
