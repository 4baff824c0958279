"""Two ranks that each hold half of a batch learn what one process with the whole of it does."""

import pytest
import quantizer_ranks
import torch
from pair import Pair


def test_two_ranks_learn_as_one_process(pair: Pair):
    found = pair(quantizer_ranks.of_halves)
    whole = quantizer_ranks.slopes(quantizer_ranks.LFQ.build(0), quantizer_ranks.batch(6))
    torch.testing.assert_close(torch.tensor(found["gradient"]), whole.flatten())
    # A rank that knew its own half alone would have other gradients.
    alone = quantizer_ranks.slopes(quantizer_ranks.LFQ.build(0), quantizer_ranks.batch(6)[:1]) / 2
    assert (alone - whole[:1]).abs().max() > 1e-5

    quantizer = quantizer_ranks.VQ.build(0)  # so few codes that none starts anew
    for _ in range(2):
        quantizer(quantizer_ranks.batch(4))
    first, second = (torch.tensor(book) for book in found["learned"])
    assert torch.equal(first, second)
    torch.testing.assert_close(first, quantizer.codebook.flatten())
    assert quantizer.counts.min() > 0.01

    first, second = (torch.tensor(book) for book in found["restarted"])
    assert torch.equal(first, second)
    started = (first != quantizer_ranks.RESTARTED.build(0).codebook.flatten()).reshape(200, 4)
    assert started.any(-1).sum() > 60


@pytest.mark.parametrize("name", ["one", "none"])
def test_ranks_with_fewer_images_than_others_learn_as_one_process(pair: Pair, name: str):
    """As where images are bad; a rank that has none left takes part with vectors of no meaning."""
    found = pair(quantizer_ranks.of_unequal_parts)
    z_11nD = quantizer_ranks.whole(6, name)
    gradient = quantizer_ranks.slopes(quantizer_ranks.LFQ.build(0), z_11nD).flatten()
    first = torch.tensor(found[f"lfq {name}"])
    torch.testing.assert_close(first, gradient[: len(first)])
    quantizer = quantizer_ranks.VQ.build(0)
    quantizer(quantizer_ranks.whole(4, name))
    torch.testing.assert_close(torch.tensor(found[f"vq {name}"]), quantizer.codebook.flatten())
    started = torch.tensor(found[f"dead {name}"]).reshape(200, 4)
    assert not (started == 9).all(-1).any()
