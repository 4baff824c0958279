"""Memory: how much generation may take, and what happens where it would take more."""

from pathlib import Path

import pytest
import torch
from test_generation import image, lively, question  # noqa: F401  (a fixture)

from unimodal.events import ReplyDone
from unimodal.generation import Generation
from unimodal.memory import UNKNOWN, free_bytes
from unimodal.model import Model
from unimodal.sampling import Sampling

GUIDED = Sampling(guidance=2.0, seed=1, max_images=1)


def token_bytes(model: Model) -> int:
    """Keys and values of a token, written out: float32."""
    config = model.transformer.config
    return 2 * config.num_layers * config.num_kv_heads * config.head_width * 4


def held(generation: Generation) -> int:
    """The bytes that the cache has taken."""
    cache = generation._branches._cache
    return sum(one.nbytes for one in cache._memory)


def test_what_never_fits_is_refused_with_both_numbers(lively: Model) -> None:  # noqa: F811
    roomy = Generation(lively)
    roomy.submit(question("draw"), GUIDED, "image")
    roomy.step()
    wanted = held(roomy)
    assert wanted % (2 * token_bytes(lively)) == 0, "two branches"
    tight = Generation(lively, max_bytes=wanted - 1)
    with pytest.raises(ValueError, match=f"wants {wanted:,} bytes .* {wanted - 1:,} are allowed"):
        tight.submit(question("draw"), GUIDED, "image")
    assert tight.idle
    enough = Generation(lively, max_bytes=wanted)
    enough.submit(question("draw"), GUIDED, "image")
    assert any(isinstance(event, ReplyDone) for event in enough.run())
    assert held(enough) == wanted


@pytest.mark.parametrize("num_prefixes", [0, 4])
def test_what_does_not_fit_now_waits(lively: Model, num_prefixes: int) -> None:  # noqa: F811
    """Long and short, one and two branches: never more bytes than allowed, and the same images."""
    asked = [
        (question("draw " + "a red circle " * (7 * n % 12), image(lively, n)), guidance)
        for n, guidance in enumerate([2.0, None, 2.0, None, None, 2.0])
    ]
    longest = Generation(lively)
    longest.submit(asked[5][0], GUIDED, "image")
    allowed = 2 * longest._waiting[0].max_tokens * 2 * token_bytes(lively)
    images, num_active = [], set()
    for bound in (allowed, None):
        generation = Generation(lively, 8, num_prefixes, bound)
        for number, (document, guidance) in enumerate(asked):
            sampling = Sampling(guidance=guidance, seed=number)
            generation.submit(document, sampling, "image")
        drawn = {}
        while not generation.idle:
            for event in generation.step():
                if isinstance(event, ReplyDone):
                    drawn[event.request] = event.ids
            if bound is not None:
                num_active.add(len(generation._active))
                assert held(generation) + generation._branches.prefixes.num_bytes <= allowed
        images.append([drawn[number] for number in range(len(asked))])
    assert images[0] == images[1]
    assert 1 < max(num_active) < len(asked), "some at once, and some waited"


def test_free_memory_is_read_where_the_system_tells(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:  16 kB\nMemAvailable:    7 kB\n")
    assert free_bytes(torch.device("cpu"), told) == 7 * 1024
    told.write_text("MemTotal:  16 kB\n")
    assert free_bytes(torch.device("cpu"), told) == UNKNOWN
    assert free_bytes(torch.device("cpu"), tmp_path / "none") == UNKNOWN
    assert free_bytes(torch.device("cpu")) > 0
