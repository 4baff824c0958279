"""Options that take a number: what is no number, or not within bounds, is refused in a line."""

import pytest
from click.testing import CliRunner

from unimodal.command import main

CASES = (
    ["data", "convert", "x", "y", "--bad-share"],
    ["train", "plan", "lm_0.5b", "--gpus", "8", "--memory-gb"],
    ["train", "teach", "x", "--output", "y", "--minutes"],
    ["eval", "tokenizer", "--min-usage"],
)


@pytest.mark.parametrize("words", CASES, ids=lambda words: words[-1])
@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "-1", "1e300"])
def test_numbers_outside(words: list[str], number: str) -> None:
    if words[-1] == "--memory-gb" and number == "1e300":
        pytest.skip("a memory has no most")
    done = CliRunner().invoke(main, [*words, number])
    assert done.exit_code == 2 and f"Invalid value for '{words[-1]}'" in done.output
    assert "is not in the range" in done.output


def test_numbers_inside_are_taken() -> None:
    done = CliRunner().invoke(main, ["train", "plan", "lm_0.5b", "--gpus", "8", "--memory-gb", "80",
                                     "--num-ids", "70000"])  # fmt: skip
    assert done.exit_code == 0, done.output
