"""Small image tokenizers of published families, made by transformers with random weights."""

from math import prod
from typing import Any

import torch
from transformers import (
    ChameleonVQVAEConfig,
    Emu3VQVAE,
    Emu3VQVAEConfig,
    JanusVQVAE,
    PreTrainedModel,
)
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE
from transformers.models.janus.configuration_janus import JanusVQVAEConfig

LEVELS = {"base_channels": 32, "channel_multiplier": [1, 2, 1], "num_res_blocks": 1}
CHAMELEON = LEVELS | {
    "embed_dim": 8, "num_embeddings": 96, "latent_channels": 16, "resolution": 32,
    "attn_resolutions": [16],
}  # fmt: skip
JANUS = LEVELS | {"embed_dim": 4, "num_embeddings": 96, "latent_channels": 16, "num_patches": 6}
EMU3 = LEVELS | {
    "codebook_size": 96, "channel_multiplier": [1, 1, 2], "attn_resolutions": [2],
    "hidden_size": 64,
}  # fmt: skip


def chameleon(**changed: Any) -> ChameleonVQVAE:
    """Return an encoder of 4 x 4 pixels a code, with attention at the middle level."""
    return randomised(ChameleonVQVAE(ChameleonVQVAEConfig(**CHAMELEON | changed)))


def janus(**changed: Any) -> JanusVQVAE:
    """Return an autoencoder of 4 x 4 pixels a code."""
    return randomised(JanusVQVAE(JanusVQVAEConfig(**JANUS | changed)))


def emu3(**changed: Any) -> Emu3VQVAE:
    """Return an autoencoder of 4 x 4 pixels and 4 frames a code."""
    model = randomised(Emu3VQVAE(Emu3VQVAEConfig(**EMU3 | changed)))
    with torch.no_grad():  # its latents differ little: codes must lie among them to be told apart
        frames = images(32, 32)[:, None].repeat(1, model.config.temporal_downsample_factor, 1, 1, 1)
        latents = model.quant_conv(model.encoder(frames).permute(0, 2, 1, 3, 4))
        z_Dn = latents.transpose(0, 1).flatten(1)
        table = model.quantize.embedding.weight
        table.mul_(z_Dn.std(1)).add_(z_Dn.mean(1))
    return model


def randomised(model: PreTrainedModel) -> Any:
    """Return the model with weights of a scale at which signals neither vanish nor grow, and with
    statistics of batch norm that are not those of a new one.
    """
    generator = torch.Generator().manual_seed(3)
    state = model.state_dict()
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            state[name] = 0.5 + noise.square()
        elif name.endswith("embedding.weight"):
            state[name] = noise
        elif tensor.ndim > 1:
            state[name] = noise * prod(tensor.shape[1:]) ** -0.5
        elif tensor.ndim == 1:
            state[name] = 0.1 * noise + (1.0 if "norm" in name and "weight" in name else 0.0)
    model.load_state_dict(state)
    return model.eval()


def images(height: int, width: int, count: int = 2) -> torch.Tensor:
    """Return noise, float32 (count, 3, height, width) in [-1, 1]."""
    generator = torch.Generator().manual_seed(height + 1000 * width)
    return 2 * torch.rand(count, 3, height, width, generator=generator) - 1
