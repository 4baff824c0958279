"""The benchmark of drawing runs on tiny inputs, and its checks see what is not exact."""

import pytest
from benchmarks import generation
from benchmarks.generation import QUICK, Way, head, lines


def test_the_line_of_the_head() -> None:
    line = head(QUICK)
    assert not line.wrong and line.check == "same ids"


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
