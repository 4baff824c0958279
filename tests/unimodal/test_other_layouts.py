"""Replies in the layouts of other families, and of a model whose ids lie elsewhere."""

import dataclasses

import numpy as np
import pytest
import torch
from spelled import parts_of
from test_generation import (  # noqa: F401  (fixtures)
    Logits,
    assert_equal_logits,
    lively,
    question,
    replies,
    seen,
    storyteller,
    teacher_forced,
)
from toy_layouts import NUM_CODES, TOYS, ShiftedText, Toy, content

from unimodal.architecture import Architecture
from unimodal.document import Document, Image, Text
from unimodal.generation import generate, stream
from unimodal.heads.next_code import NextCode, NextCodeInputs
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.transformer import TransformerConfig
from unimodal.unified import UnifiedModel
from unimodal.vocabulary import Vocabulary


@pytest.fixture(scope="module", params=[name for name in TOYS if name != "own"])
def toy(request) -> Toy:
    return TOYS[request.param]


@pytest.fixture(scope="module")
def model(toy: Toy, tiny_model: Model) -> Model:
    """Attention far from uniform; images and the ends of turns are likely."""
    config = TransformerConfig(
        num_ids=toy.vocabulary.size, width=32, num_layers=2, num_heads=4, num_kv_heads=2,
        head_width=8, mlp_width=64,
    )  # fmt: skip
    transformer = UnifiedModel(Architecture(config, toy.vocabulary)).eval()
    transformer.head.inputs = NextCodeInputs(toy.layout)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
        for name in ("image", toy.layout.stops[0].name):
            transformer.model.embed_tokens.weight[toy.vocabulary.special(name)] *= 6
    assert tiny_model.image_tokenizer.num_codes == NUM_CODES
    return dataclasses.replace(
        tiny_model,
        transformer=transformer,
        text_tokenizer=toy.text,
        grid=toy.grids[-1],
        context=256,
    )  # fmt: skip


def shown(model: Model, seed: int) -> Image:
    codes = np.random.default_rng(seed).integers(0, NUM_CODES, (model.grid.size, 1))
    return Image(codes=codes, grid=model.grid, codec_hash=model.codec.hash, role="user")


@pytest.mark.parametrize("guidance", [None, 3.0])
def test_cached_steps_equal_teacher_forcing(
    toy: Toy,
    model: Model,
    seen: Logits,  # noqa: F811
    guidance: float | None,
) -> None:
    documents = [
        question("draw it"),
        question("is it red?", shown(model, 0)),
        Document((*question("a").parts, Text("b", "assistant"), *question("c").parts)),
        question("draw it, please, a red star, a red star"),
    ] * 2
    modalities = ["image", None, None, None] * 2
    samplings = [
        Sampling(text_temperature=1.0, guidance=guidance, seed=seed, max_text_tokens=12)
        for seed in range(8)
    ]
    done = replies(stream(model, documents, samplings, modalities))
    layout, num_images = model.sequencer.layout, 0
    for k, document in enumerate(documents):
        ids = list(done[k].ids)
        actual = {at: logits for (number, at), logits in seen.items() if number == k}
        expected = teacher_forced(model, document, ids, samplings[k], modalities[k])
        assert_equal_logits(actual, expected)
        # What was said is what an inverse reads, and the sequencer spells it with the same ids.
        ends_reply = ids[-1] not in layout.stops
        said = parts_of(layout, ids if ends_reply else ids[:-1], "assistant", model.codec.hash,
                        toy.untold)  # fmt: skip
        drawn = [part for part in said if isinstance(part, Image)]
        images = [part for part in done[k].parts if isinstance(part, Image)]
        assert content(Document(tuple(drawn))) == content(Document(tuple(images)))
        num_images += len(drawn)
        if len(drawn) == len(said):
            prompt = model.sequencer.prompt(document).ids.tolist()
            whole = model.sequencer.sequence(Document((*document.parts, *done[k].parts)))
            assert whole.ids[: len(prompt) + len(ids)].tolist() == [*prompt, *ids]
    assert num_images >= 2


# --- ids that lie elsewhere ---------------------------------------------------------------------


def moved(model: Model) -> Model:
    """The same model with its ids dealt out anew: codes in three runs below the text, special
    tokens between them; rows of both tables go along.
    """
    old, num_text = model.vocabulary, model.text_tokenizer.num_ids
    assert isinstance(model.transformer.head, NextCode)
    runs = ((3, 20), (30, 30), (70, 14))
    free = [k for k in range(200) if not any(first <= k < first + n for first, n in runs)]
    names = dict(zip(old.special_tokens, free, strict=False))
    text = ShiftedText(model.text_tokenizer, 200)
    new = Vocabulary(text.num_ids, names, runs)
    place = np.concatenate(
        [np.arange(num_text) + 200, [names[name] for name in old.special_tokens], new.code_ids]
    )
    before = model.transformer
    config = dataclasses.replace(before.config, num_ids=new.size)
    transformer = UnifiedModel(Architecture(config, new)).eval()
    state = dict(before.state_dict())
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in state:
            table = torch.full((new.size, config.width), 0.5)
            table[place] = state[name]
            state[name] = table
    transformer.load_state_dict(state)
    return dataclasses.replace(model, transformer=transformer, text_tokenizer=text)


def test_a_model_whose_ids_are_elsewhere_says_and_draws_the_same(
    lively: Model,  # noqa: F811
    storyteller: Model,  # noqa: F811
) -> None:
    """Codes and texts, not ids, are what comes out; noise falls on the same codes in order."""
    for model in (lively, storyteller):
        other = moved(model)
        documents = [question("draw it"), question("what?", shown(model, 1)), question("make it")]
        samplings = [
            Sampling(guidance=guidance, seed=seed, image_top_p=top_p, max_text_tokens=9)
            for seed, (guidance, top_p) in enumerate([(None, None), (2.0, 0.9), (3.0, None)])
        ]
        modalities = ["image", None, None]
        mine, theirs = (generate(one, documents, samplings, modalities) for one in (model, other))
        assert [content(Document(parts)) for parts in mine] == [
            content(Document(parts)) for parts in theirs
        ]
        assert any(isinstance(part, Image) for parts in mine for part in parts)
