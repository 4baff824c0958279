"""The benchmark of drawing runs on tiny inputs, and its checks see what is not exact."""

import numpy as np
import pytest
from benchmarks import generation
from benchmarks.generation import QUICK, Way, deviation, head, lines


def test_the_line_of_the_head() -> None:
    line = head(QUICK)
    assert not line.wrong and line.check == "same ids"


def test_samples_of_other_distributions_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(9))
    first, second = (rng.choice(9, (2, 400, 5), p=shares) for _ in range(2))
    assert abs(deviation(first, second)) < 4
    assert deviation(first, rng.choice(9, (2, 400, 5))) > 10


@pytest.mark.slow
@pytest.mark.parametrize("part", ["one", "many", "turns", "drafts"])
def test_lines_are_exact(part: str) -> None:
    found = list(lines((part,), QUICK))
    assert found and not any(line.wrong for line in found)


@pytest.mark.slow
def test_other_images_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    original = generation.ours

    def changed(way: Way, *rest: object) -> list[list[int]]:
        ids = original(way, *rest)  # type: ignore[arg-type]
        return [[*one[:-2], one[-2] ^ 1, one[-1]] for one in ids]

    monkeypatch.setattr(generation, "ours", changed)
    exact = [one for one in lines(("one",), QUICK) if "fp32" in one.what]
    assert exact and all(one.wrong == ("1 of 1 images differ",) for one in exact)
