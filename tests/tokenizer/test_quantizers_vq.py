"""VQ: moving averages as vector-quantize-pytorch makes them, and codes that start anew."""

import math
from dataclasses import replace

import pytest
import torch
from vector_quantize_pytorch import VectorQuantize

from unimodal.tokenizer.quantizers import vq as module
from unimodal.tokenizer.quantizers.vq import VQ, VqConfig

NEVER = 1e-9  # restarts no code that was ever used


def batch(seed: int, num: int = 400, width: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 1, num, width, generator=generator)


def test_moving_averages_are_the_librarys():
    torch.manual_seed(0)
    theirs = VectorQuantize(dim=4, codebook_size=20, decay=0.9, commitment_weight=0.3,
                            rotation_trick=False).train()  # fmt: skip
    ours = VQ(VqConfig(20, 4, 0.9, 0.3, NEVER))
    ours.codebook.copy_(theirs._codebook.embed[0])
    ours.counts.copy_(theirs._codebook.cluster_size[0])
    ours.sums.copy_(theirs._codebook.embed_avg[0])
    for seed in range(6):
        z = batch(seed).requires_grad_()
        vectors, codes, loss = theirs(z[0])
        found = ours(z)
        assert torch.equal(found.codes[0, :, 0], codes[0])
        torch.testing.assert_close(found.vectors[0], vectors)
        torch.testing.assert_close(found.losses["commitment"], loss.squeeze())
        gradients = (
            torch.autograd.grad((v**2).sum() + extra.sum(), z)[0]
            for v, extra in ((found.vectors, found.losses["commitment"]), (vectors, loss))
        )
        torch.testing.assert_close(*gradients)
        torch.testing.assert_close(ours.counts, theirs._codebook.cluster_size[0])
        torch.testing.assert_close(ours.sums, theirs._codebook.embed_avg[0])
        torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0])
    assert ours.num_updates == 6


def test_codes_are_the_nearest_also_in_pieces(monkeypatch: pytest.MonkeyPatch):
    vq, z = VQ(VqConfig(num_codes=100, width=4)).eval(), batch(0)
    nearest = torch.cdist(z[0, 0].double(), vq.codebook.double()).argmin(-1)
    whole = vq(z).codes
    assert torch.equal(whole[0, :, 0], nearest)
    monkeypatch.setattr(module, "MAX_DISTANCES", 700)
    assert torch.equal(vq(z).codes, whole)


def test_codes_that_are_used_often_are_preferred_where_images_are_encoded():
    """By -log p of their use in training, in parts of the mean squared distance there."""
    config = VqConfig(8, 3, decay=0.5, restart_below=NEVER, rate_weight=0.7)
    vq, plain = VQ(config).train(), VQ(replace(config, rate_weight=0.0)).train()
    distance = 0.0
    for seed in range(6):
        x = batch(seed, 64, 3)[0, 0] * torch.linspace(0.1, 2, 64)[:, None]
        squared = torch.cdist(x, vq.codebook).square()
        nearest = squared.argmin(-1)
        assert torch.equal(vq.nearest(x), nearest), "training takes the nearest"
        distance += 0.5 * (float(squared.min(-1).values.mean()) - distance)
        for one in (vq, plain):
            one.learn(x, nearest)
    assert torch.equal(vq.codebook, plain.codebook)
    assert set(vq.state_dict()) - set(plain.state_dict()) == {"distance"}
    assert float(vq.distance) == pytest.approx(distance, rel=1e-5)
    x = batch(7, 500, 3)[0, 0]
    squared, nats = torch.cdist(x, vq.codebook).square(), -(vq.counts / vq.counts.sum()).log()
    codes, nearest = vq.eval().nearest(x), plain.eval().nearest(x)
    assert torch.equal(codes, (squared + 0.7 * distance * nats).argmin(-1))
    assert torch.equal(nearest, squared.argmin(-1)) and not torch.equal(codes, nearest)
    assert nats[codes].sum() < nats[nearest].sum() - 10
    for wrong in (-0.1, math.inf, math.nan):
        assert "rate_weight" in VqConfig(rate_weight=wrong).problems()[0]


def test_evaluation_learns_nothing():
    vq = VQ(VqConfig(num_codes=100, width=4)).eval()
    before = {name: tensor.clone() for name, tensor in vq.state_dict().items()}
    vq(batch(0))
    assert all(torch.equal(vq.state_dict()[name], tensor) for name, tensor in before.items())


def test_the_first_batch_gives_its_vectors_to_codes_that_it_does_not_use():
    vq, z = VQ(VqConfig(num_codes=50, width=4)), batch(0) + 100  # all far from the first codebook
    codes = vq(z).codes
    assert len(codes.unique()) < 5
    unused = torch.ones(50, dtype=torch.bool)
    unused[codes.flatten()] = False
    started = vq.codebook[unused]
    assert {tuple(row) for row in started.tolist()} <= {tuple(row) for row in z[0, 0].tolist()}
    assert len(started.unique(dim=0)) == len(started)  # each another one
    usage = [len(vq(batch(seed) + 100).codes.unique()) for seed in range(1, 30)]
    assert usage[0] > 40 and min(usage[-5:]) >= 48


def test_a_code_that_is_no_longer_used_starts_anew():
    vq = VQ(VqConfig(num_codes=2, width=1, decay=0.5, restart_below=0.2))
    near = torch.tensor([0.0, 1.0]).repeat(50).reshape(1, 1, 100, 1)
    vq.codebook.copy_(torch.tensor([[0.0], [1.0]]))
    for _ in range(3):
        vq(near)
    torch.testing.assert_close(vq.codebook.flatten(), torch.tensor([0.0, 1.0]))
    ones, codebooks = torch.ones(1, 1, 100, 1), []
    for _ in range(6):
        vq(ones + 0.01 * torch.arange(100).reshape(1, 1, 100, 1))
        codebooks.append(vq.codebook[0].item())
    # An unused code halves its share each step: 0.25, 0.125, below 0.2 of an equal share (of 0.5)
    # in the third or fourth; until then it stays where it was.
    assert codebooks[1] == pytest.approx(0, abs=1e-4) and codebooks[-1] >= 1


def test_more_dead_codes_than_vectors_wait_for_the_next_batch():
    vq = VQ(VqConfig(num_codes=64, width=4))
    first = vq.codebook.clone()
    vq(batch(0, num=20))
    started = (vq.codebook != first).any(-1).sum()
    assert 20 <= started < 40
    vq(batch(1, num=20))
    assert (vq.codebook != first).any(-1).sum() > started
    assert vq.codebook.isfinite().all()


def test_a_restored_codebook_goes_on_as_the_first_would():
    def run(vq: VQ, seeds: range) -> VQ:
        for seed in seeds:
            vq(batch(seed, num=50))
        return vq

    config = VqConfig(num_codes=64, width=4)
    whole = run(VQ(config, seed=5), range(6))
    half = run(VQ(config, seed=5), range(3))
    resumed = VQ(config, seed=5)
    resumed.load_state_dict(half.state_dict())
    run(resumed, range(3, 6))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
