"""Images a second of published families, beside `generate` of transformers, at equal greedy codes.

    python tests/benchmarks/families.py [emu3] [janus]

Models are small, of random weights that bfloat16 holds, as published ones are stored; both sides
compute in float32 and draw with guidance on one thread, in turns. Seconds are those of the CPU,
which neighbours change less.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
import transformers

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

import published_models as made
from benchmarks.measured import Line, interleaved, ratios, spread, table

import unimodal
from unimodal.document import Document, Text
from unimodal.families import emu3, janus
from unimodal.generation import generate
from unimodal.tokenizer.grid import Grid

SIZES = {
    "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4,
}  # fmt: skip
GRID = Grid(10, 14)
ROUNDS = 5
ASKED = Document((Text("a dog in the rain", role="user"),))
Codes = list[int]


def of_emu3(folder: Path) -> tuple[Callable[[], Codes], Callable[[], Codes]]:
    """Return what draws an Emu3 image here, and what draws it there."""
    theirs = as_stored(made.emu3_model(**SIZES))
    model = replace(unimodal.load(made.save_emu3(folder, theirs)), grid=GRID)
    opening = f"<|image start|>{GRID.height}*{GRID.width}<|image token|>"
    asked, negative = (
        made.emu3_processor()(text=[words + opening], return_tensors="pt")["input_ids"]
        for words in ("a dog in the rain" + emu3.PRAISE, emu3.NEGATIVE)
    )
    codes, row_end = model.vocabulary.code_ids.tolist(), [model.vocabulary.special("<|extra_200|>")]

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        at = len(ids) - asked.shape[1]
        return row_end if at % (GRID.width + 1) == GRID.width else codes

    def there() -> Codes:
        ids = theirs.generate(
            asked, do_sample=False, max_new_tokens=GRID.height * (GRID.width + 1),
            prefix_allowed_tokens_fn=allowed, guidance_scale=3.0, negative_prompt_ids=negative,
            attention_mask=torch.ones_like(asked), eos_token_id=None,
            negative_prompt_attention_mask=torch.ones_like(negative),
        )[0, asked.shape[1] :]  # fmt: skip
        return model.vocabulary.code_of_id[ids[ids != row_end[0]].numpy()].tolist()

    return lambda: drawn(model), there


def of_janus(folder: Path) -> tuple[Callable[[], Codes], Callable[[], Codes]]:
    """Return what draws a Janus image here, and what draws it there."""
    theirs = as_stored(made.janus_model(text=SIZES, side=48))
    model = unimodal.load(made.save_janus(folder, theirs))
    special = model.vocabulary.special
    prompt = model.drawer.sequencer.prompt(ASKED).ids.tolist()
    asked = torch.tensor([[*prompt, special(janus.IMAGE_BEGIN.name)]])
    config = transformers.GenerationConfig(
        do_sample=False, guidance_scale=5.0, bos_token_id=special(janus.BEGIN.name),
        pad_token_id=special("pad"), eos_token_id=special(janus.END.name), max_length=512,
        generation_kwargs={"boi_token_id": special(janus.IMAGE_BEGIN.name)},
    )  # fmt: skip

    def there() -> Codes:
        return theirs.generate(
            asked, attention_mask=torch.ones_like(asked), generation_config=config,
            generation_mode="image",
        )[0].tolist()  # fmt: skip

    return lambda: drawn(model), there


@torch.no_grad()
def as_stored(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Round weights to bfloat16; they stay float32."""
    for weight in model.parameters():
        weight.copy_(weight.bfloat16())
    return model


def drawn(model: unimodal.Model) -> Codes:
    """Return the likeliest codes of an image, with the family's guidance."""
    sampling = replace(model.sampling, image_temperature=0.0)
    ((image,),) = generate(model, [ASKED], sampling, "image")
    return image.codes[:, 0].tolist()


def line(name: str) -> Line:
    """Return a family's line of the table."""
    make, bar = {"emu3": (of_emu3, 2.0), "janus": (of_janus, 1.3)}[name]
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = make(Path(folder))
        with torch.inference_mode():
            codes, expected = ours(), theirs()
            here, there = interleaved(ROUNDS, ours, theirs, clock=time.process_time)
    found = ratios(there, here)
    return Line(
        what=f"{name}: an image of {len(codes)} codes, guided",
        ours=spread(here, " s"), peer=spread(there, " s"), ratio=spread(found, "x"),
        bar=f"{bar}x", met=median(found) >= bar, check="equal codes",
        wrong=() if codes == expected else ("other codes",),
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(table(line(name) for name in sys.argv[1:] or ["emu3", "janus"]))


if __name__ == "__main__":
    main()
