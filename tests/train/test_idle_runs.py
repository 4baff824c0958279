"""A run that would learn nothing, or from less than it was given, is refused before its first step
or says so.
"""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.faults import caption, damaged, image, write_tar
from PIL import Image as PILImage
from tiny_runs import metrics, recipe

from unimodal.data.shards import ShardWriter
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig, Stage
from unimodal.document import Document, Text
from unimodal.train import lm
from unimodal.train.heldout import HeldOutConfig
from unimodal.train.objectives import LossConfig
from unimodal.train.run import LmRun

pytestmark = pytest.mark.usefixtures("one_thread")
ASKED = {"messages": [{"role": "user", "content": "are you there?"}]}


def chat(turns: dict) -> dict[str, bytes]:
    return {"json": json.dumps(turns).encode()}


def photograph(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    stream = io.BytesIO()
    PILImage.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def run(tmp_path: Path, tokenizer: Path):
    """The recipe of a tiny run on these tars, by the name of their source."""

    def made(num_steps: int = 2, **tars: dict) -> LmRun:
        sources = {}
        for name, samples in tars.items():
            write_tar(tmp_path / f"{name}.tar", samples)
            sources[name] = SourceConfig(str(tmp_path / f"{name}.tar"))
        config = recipe(tmp_path / "run", tmp_path, tokenizer, num_steps)
        return replace(config, sources=sources, text_ids=256)

    return made


def refused(config: LmRun, words: str) -> str:
    """The message; no step was taken and nothing was written that looks like a model."""
    with pytest.raises(ValueError, match=words) as error:
        lm.train(config)
    assert not metrics(config.output) and not (config.output / "bundle").exists()
    return str(error.value)


def test_images_that_are_all_cut(run) -> None:
    cut = {f"k{n}": caption("a cat", image()[: len(image()) // 2]) for n in range(8)}
    message = refused(run(s=cut), "s: 8 of 8 samples cannot be used, more than the share of 1.00%")
    assert "s.tar, key k" in message and "raise bad_share" in message
    every = run(s=cut)
    every = replace(every, loader=replace(every.loader, bad_share=1.0))
    refused(every, "nothing of s is learned: none of the 8 documents that were tried can be read")


def test_images_half_of_which_are_cut(run, capsys: pytest.CaptureFixture) -> None:
    """Of twenty photographs ten; where that is let pass, the end of the run says what it cost."""
    samples = {}
    for number in range(20):
        content = photograph(number)
        content = content[: 2 * len(content) // 3] if number % 2 else content
        samples[f"k{number}"] = caption("noise", content, "jpg")
    config = run(s=samples, num_steps=3)
    loader = replace(config.loader, images=ImageRule(), batch_rows=2)
    refused(replace(config, loader=loader), "s: 10 of 20 samples cannot be used")
    lm.train(replace(config, loader=replace(loader, bad_share=0.5)))
    told = capsys.readouterr().err
    assert "s at 4096 pixels: 20 samples; used: 20 (caption 20), 20 documents; left out: none; " \
        "bad: none" in told  # fmt: skip
    last = metrics(config.output)[-1]
    read, bad = last["documents"], last["bad_documents"]
    assert 0 < bad < read
    assert f"s: read {read} documents ({read / 20:.2f} passes over 20); {bad} of them were" in told
    assert f"bad: bad image {bad}; see quarantine.jsonl" in told


def test_a_small_source_of_which_nothing_is_left(run) -> None:
    """It would be a thousandth of all samples, and half of what is learned."""
    sound = {f"k{n}": {"txt": b"words"} for n in range(1000)}
    broken = {f"k{n}": caption("x", damaged(image())) for n in range(5)}
    message = refused(run(large=sound, small=broken), "small: 5 of 5 samples cannot be used")
    assert "large" not in message


def test_chats_of_user_turns_alone(run) -> None:
    chats = {f"k{n}": chat(ASKED) for n in range(40)}
    refused(
        run(s=chats), "nothing of s is learned: none of its 40 documents has an assistant's turn"
    )
    answers = {"k": {"json": json.dumps({"question": "why?", "answer": "so"}).encode()}}
    message = refused(run(s=chats, t=answers), "nothing of s is learned")
    assert "nothing of t" not in message


def test_weights_that_leave_nothing(run) -> None:
    config = run(s={f"k{n}": {"txt": b"words"} for n in range(4)})
    silent = replace(config, sources={"s": replace(config.sources["s"], text_weight=0.0)})
    refused(silent, "4 of its 4 documents have text to learn, but sources.s.text_weight is 0")
    unweighed = replace(config, loss=LossConfig(text=0.0))
    refused(unweighed, "4 of its 4 documents have text to learn, but loss.text is 0")
    pictures = run(s={f"k{n}": caption("words", image(shade=n)) for n in range(4)})
    both = replace(pictures.sources["s"], text_weight=0.0)
    both = replace(pictures, sources={"s": both}, loss=LossConfig(image=0.0))
    refused(both, "text_weight is 0 and 4 of its 4 documents have image to learn, but loss.image")
    lm.train(replace(pictures, loss=LossConfig(image=0.0)))
    assert metrics(config.output)[-1]["loss"] > 0


def test_a_source_that_learns_a_part_says_of_how_much_it_does_not(run, capsys) -> None:
    answered = {"messages": [*ASKED["messages"], {"role": "assistant", "content": "yes"}]}
    chats = {f"k{n}": chat(answered if n < 4 else ASKED) for n in range(10)}
    lm.train(run(s=chats | {"empty": chat({"messages": []})}))
    said = "s: 11 samples; used: 10 (chat 10), 10 documents, of 6 of which nothing is learned; "
    said += "left out: empty 1; bad: none"
    assert said in capsys.readouterr().err


def test_a_stage_that_is_never_reached_is_told(run, capsys) -> None:
    config = run(s={"k": {"txt": b"words"}})
    stages = (Stage(1, {"s": 2.0}), Stage(2, {"s": 3.0}))
    lm.train(replace(config, loader=replace(config.loader, stages=stages)))
    told = capsys.readouterr().err
    assert "note: loader.stages from step 2 is not reached: num_steps is 2" in told
    assert "stages from step 1" not in told


def test_what_is_held_out_has_something_to_measure(run) -> None:
    config = run(s={f"k{n}": {"txt": b"words"} for n in range(4)}, out={"k": chat(ASKED)})
    held_out = HeldOutConfig({"out": config.sources["out"]}, rows=3)
    config = replace(config, sources={"s": config.sources["s"]}, held_out=held_out)
    refused(config, "held_out.sources.out: its first 3 rows have no target")


def test_a_run_whose_steps_had_no_target_gives_no_bundle(run) -> None:
    """What could be learned is cut, and what is whole has nothing to learn."""
    samples = {f"k{n}": chat(ASKED) for n in range(8)}
    samples["cut"] = {"json": b'{"question": "what?", "answer": "x"}', "png": damaged(image())}
    config = run(s=samples)
    config = replace(config, loader=replace(config.loader, bad_share=0.5))
    with pytest.raises(ValueError, match="no step had a target, so nothing was learned and no"):
        lm.train(config)
    assert len(metrics(config.output)) == 2 and not (config.output / "bundle").exists()


def test_bad_samples_of_a_large_source_stop_it_before_its_first_step(tmp_path: Path, run) -> None:
    """A tenth of 3,000: of the 256 that are tried, too many for chance."""
    content, broken = image(), damaged(image())
    many = {f"k{n}": caption(f"#{n}", content if n % 8 else broken) for n in range(3000)}
    message = refused(run(s=many), r"s: \d+ of 256 samples cannot be used")
    assert message.count("key k") == 10


def test_empty_documents_are_no_sources(tmp_path: Path, tokenizer: Path) -> None:
    with ShardWriter(tmp_path / "shards") as writer:
        writer.write("0", Document((Text("only asked", "user", 0.0),)))
    config = recipe(tmp_path / "run", tmp_path / "shards", tokenizer, 2)
    refused(config, "nothing of scenes is learned: none of its 1 documents")
