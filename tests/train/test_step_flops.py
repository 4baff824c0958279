"""FLOPs of a step of each image head: what a counter of products sees, and who sees whom."""

import pytest
import torch
from benchmarks.image_heads import QUICK, model_of, rows_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unimodal.sequence import PADDING, Batch, span_mask
from unimodal.text import TextTokenizer
from unimodal.train.flops import document_counts, layer_weights, step_flops
from unimodal.unified import UnifiedModel

HEADS = ("next_code", "masked", "flow", "scale")


@pytest.fixture(scope="module", params=HEADS)
def case(request: pytest.FixtureRequest) -> tuple[UnifiedModel, Batch]:
    text = TextTokenizer.train(["draw two red circles beside a small blue star"], 280)
    model = model_of(request.param, text.num_ids, QUICK)
    return model, rows_of(model, text, QUICK)


def test_pairs_are_those_of_the_dense_mask(case: tuple[UnifiedModel, Batch]) -> None:
    _, batch = case
    mask = span_mask(batch.doc, batch.block, batch.private)
    counts = document_counts(batch)
    assert counts["tokens"] == int((batch.doc != PADDING).sum()) > 400
    assert counts["pairs"] == int(mask.sum()) - int((batch.doc == PADDING).sum())


def test_products_are_those_that_a_counter_sees(case: tuple[UnifiedModel, Batch]) -> None:
    model, batch = case

    def attend(layer: int, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
        return v_BGTd + 0 * q_BHTd  # its products are the pairs' and counted by themselves

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.hidden_states(batch, batch.positions, attend)
    weights = model.config.num_layers * layer_weights(model.config)
    products = model.embedder.products(batch)
    assert counter.get_total_flops() == 2 * (batch.ids.numel() * weights + products)
    assert (products > 0) == (model.architecture.image.head in ("flow", "scale"))


def test_a_step_is_three_forwards_of_all_parts() -> None:
    shape = model_of("next_code", 280, QUICK).config
    counts = {"tokens": 10, "pairs": 55, "targets_text": 3, "targets_image": 4}
    head_ids = {"text": 300, "image": 16}
    least = step_flops(shape, counts, head_ids)
    by_hand = (
        10 * shape.num_layers * layer_weights(shape)
        + (3 * 300 + 4 * 16) * shape.width
        + 55 * 2 * shape.num_heads * shape.head_width * shape.num_layers
    )
    assert least == 6 * by_hand
    assert step_flops(shape, counts | {"embedder": 7}, head_ids) == least + 6 * 7
