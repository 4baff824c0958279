"""Image tokenizers at 256 x 256 pixels, in images a second.

    python tests/benchmarks/image_tokenizers.py [--threads N] [--quick]

Encoding against transformers' Chameleon VQ, which has no decoder, and decoding against its Janus
VQ, both of their published shapes. Ours is the f16 convolutional autoencoder with FSQ, and has at
least as many parameters on either side, the peers' codebooks counted. All weights are random: speed
alone is compared, and quality in quantizer_tables.py. Contenders take the same images in turns; a
value is a median, with its range in brackets. The exit status is 1 when something is not exact.
"""

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import ChameleonVQVAEConfig, JanusVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE
from transformers.models.janus.modeling_janus import JanusVQVAE

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

from benchmarks.gpus import NEEDS, timed
from benchmarks.measured import Line, interleaved, ratios, spread, table

from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.autoencoders.convolutions import ConvolutionsConfig
from unimodal.tokenizer.grid import Grid
from unimodal.train import heap
from unimodal.train.loop import LoopConfig, set_threads

FASTER, SAME = 2.0, 1e-4  # the bars: times as many images, and how far batched pixels may be off
ON_GPU = {"f16 encoder": 2_500}  # images a second on an H200
PEAK_TFLOPS = 989  # of an H200 or H100, bfloat16 without sparsity
SIDE, PATCH = 256, 16
CHECKED = 3  # images whose codes and pixels are checked


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    peer_channels: int = 128
    widths: tuple[int, ...] = (128, 320, 832)
    images: int = 1
    repeats: int = 3
    gpu_images: int = 256


QUICK = Scale(32, (32, 96, 384), 1, 1, 8)


@click.command()
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
@click.option("--quick", is_flag=True, help="Small sizes: shows that it works, and no more.")
def main(threads: int, quick: bool) -> None:
    """Print the table."""
    set_threads(LoopConfig(num_threads=threads))  # as a run does, for all contenders
    heap.keep_freed()
    scale = QUICK if quick else Scale()
    found = [*lines(scale), *gpu_lines(scale)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {threads} threads, {device}, torch {torch.__version__}{', quick' * quick}\n")
    print(table(found))
    sys.exit(any(line.wrong for line in found))


def tokenizer(scale: Scale) -> ImageTokenizer:
    """Ours."""
    shape = ConvolutionsConfig(
        factor=PATCH, widths=scale.widths, encoder_blocks=(1, 2, 2), decoder_blocks=(1, 2, 3)
    )
    return ImageTokenizer(TokenizerConfig(convolutions=shape)).eval()


def images(count: int) -> torch.Tensor:
    """Smooth random images, float32 (B, 3, 256, 256) in [-1, 1]."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")


@torch.inference_mode()
def lines(scale: Scale) -> list[Line]:
    """Encoding and decoding in float32 on CPUs."""
    ours, grid = tokenizer(scale), Grid(SIDE // PATCH, SIDE // PATCH)
    encoder = ChameleonVQVAE(ChameleonVQVAEConfig(base_channels=scale.peer_channels)).eval()
    shape = JanusVQVAEConfig(base_channels=scale.peer_channels, num_patches=grid.width)
    decoder = JanusVQVAE(shape).eval()
    checked_BCHW = images(CHECKED)
    codes_BnG = ours.encode(checked_BCHW)[0]
    x_BCHW, timed_BnG = checked_BCHW[: scale.images], codes_BnG[: scale.images]
    theirs_Bn = timed_BnG[..., 0] % shape.num_embeddings
    return [
        compared(
            "encode", "Chameleon VQ", scale,
            lambda: encoder.encode(x_BCHW), lambda: ours.encode(x_BCHW),
            _parameters(encoder.encoder, encoder.quant_conv, encoder.quantize),
            _parameters(ours.encoder), encoded_alone(ours, checked_BCHW, codes_BnG),
        ),
        compared(
            "decode", "Janus VQ", scale,
            lambda: decoder.decode(theirs_Bn), lambda: ours.decode(timed_BnG, grid),
            _parameters(decoder.decoder, decoder.post_quant_conv, decoder.quantize),
            _parameters(ours.decoder), decoded_alone(ours, codes_BnG, grid),
        ),
    ]  # fmt: skip


def compared(
    what: str, peer: str, scale: Scale, theirs: Callable[[], object], ours: Callable[[], object],
    their_parameters: int, our_parameters: int, checked: tuple[str, tuple[str, ...]],
) -> Line:  # fmt: skip
    """A line of two contenders over the same images."""
    their_s, our_s = interleaved(scale.repeats, theirs, ours)
    faster, (check, wrong) = ratios(their_s, our_s), checked
    our_rate, their_rate = ([scale.images / one for one in spent] for spent in (our_s, their_s))
    if our_parameters < their_parameters:
        wrong += (f"{our_parameters:,} parameters against {their_parameters:,}",)
    return Line(
        f"{what}, {SIDE} x {SIDE}, batches of {scale.images}, float32",
        f"{spread(our_rate, ' images/s')}, {_millions(our_parameters)}",
        f"{peer} {spread(their_rate, ' images/s')}, {_millions(their_parameters)}",
        spread(faster), f">= {FASTER:g}", median(faster) >= FASTER, check, wrong,
    )  # fmt: skip


def encoded_alone(
    ours: ImageTokenizer, x_BCHW: torch.Tensor, codes_BnG: torch.Tensor
) -> tuple[str, tuple[str, ...]]:
    """What was checked of codes, and what is wrong: an image alone has those that it has in a
    batch, and the last image mirrored has others.
    """
    alone = torch.cat([ours.encode(one[None])[0] for one in x_BCHW])
    share = float((alone != codes_BnG).float().mean())
    mirrored = float((ours.encode(x_BCHW[-1:].flip(3))[0] != codes_BnG[-1:]).float().mean())
    check = (
        f"codes alone and in a batch differ at {share:.2%} of places, mirrored at {mirrored:.0%}"
    )
    return check, () if share < 1e-2 < mirrored else (check,)


def decoded_alone(
    ours: ImageTokenizer, codes_BnG: torch.Tensor, grid: Grid
) -> tuple[str, tuple[str, ...]]:
    """What was checked of pixels, and what is wrong: alone they are those of a batch."""
    batch = ours.decode(codes_BnG, grid)
    alone = torch.cat([ours.decode(one[None], grid) for one in codes_BnG])
    apart = float((batch - alone).abs().max())
    check = f"pixels alone and in a batch are {apart:.0e} apart"
    return check, () if apart <= SAME else (check,)


def gpu_lines(scale: Scale) -> list[Line]:
    """The f16 encoder and decoder in bfloat16 on a GPU; empty where there is none."""
    names = ("f16 encoder", "f16 decoder")
    bars = {name: f">= {ON_GPU[name]:,} images/s on an H200" for name in ON_GPU}
    if not torch.cuda.is_available():
        return [Line(f"{name}, bf16", NEEDS, bar=bars.get(name, "")) for name in names]
    ours = tokenizer(scale).cuda()
    x_BCHW = images(scale.gpu_images).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        codes_BnG, grid = ours.encode(x_BCHW)
        works = (lambda: ours.encode(x_BCHW), lambda: ours.decode(codes_BnG, grid))
        return [
            _on_gpu(name, work, scale, bars.get(name, ""))
            for name, work in zip(names, works, strict=True)
        ]


def _on_gpu(name: str, work: Callable[[], object], scale: Scale, bar: str) -> Line:
    with FlopCounterMode(display=False) as counted:
        work()
    seconds = timed(lambda: (work(), None)[1], scale.repeats)
    rates = [scale.gpu_images / one for one in seconds]
    share = counted.get_total_flops() / median(seconds) / (PEAK_TFLOPS * 1e12)
    least = ON_GPU.get(name)
    return Line(
        f"{name}, bf16, batches of {scale.gpu_images}", spread(rates, " images/s"),
        ratio=f"{share:.1%} of {PEAK_TFLOPS} TFLOP/s", bar=bar,
        met=None if least is None else median(rates) >= least,
    )  # fmt: skip


def _parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for one in modules for parameter in one.parameters())


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M parameters"


if __name__ == "__main__":
    main()
