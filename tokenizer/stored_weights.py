"""An image tokenizer's files: its config as JSON, its weights as safetensors, one hash of both.

A weight whose numbers bfloat16 holds is stored in it, others in float32; the hash does
not tell.
"""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

WEIGHTS, CONFIG = "tokenizer.safetensors", "tokenizer.json"


def hash_of(config_json: str, tokenizer: nn.Module) -> str:
    """Return the SHA-256 (hex) of config and weights."""
    digest = hashlib.sha256(config_json.encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def num_bytes(tokenizer: nn.Module) -> int:
    """Return about how many bytes `write` writes."""
    return sum(tensor.nbytes for tensor in _at_rest(tokenizer).values())


def write(directory: Path, config_json: str, tokenizer: nn.Module) -> None:
    """Write weights (safetensors) and config into a directory."""
    (directory / WEIGHTS).write_bytes(
        save(_at_rest(tokenizer))
    )  # save_file's are its owner's alone
    (directory / CONFIG).write_text(config_json + "\n")


def _at_rest(tokenizer: nn.Module) -> dict[str, Tensor]:
    """Return the weights by name in the dtype that they are stored in."""
    state = tokenizer.state_dict().items()
    return {name: _narrowed(tensor.detach().cpu().contiguous()) for name, tensor in state}


def _narrowed(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    narrow = tensor.bfloat16()
    return narrow if torch.equal(narrow.to(tensor.dtype), tensor) else tensor
