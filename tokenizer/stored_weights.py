"""An image tokenizer's files: its config as JSON, its weights as safetensors, one hash of both."""

import hashlib
from pathlib import Path

from safetensors.torch import save
from torch import nn

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
    return sum(4 * tensor.numel() for tensor in tokenizer.state_dict().values())


def write(directory: Path, config_json: str, tokenizer: nn.Module) -> None:
    """Write weights (float32 safetensors) and config into a directory."""
    state = tokenizer.state_dict().items()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state}
    (directory / WEIGHTS).write_bytes(save(weights))  # save_file's are its owner's alone
    (directory / CONFIG).write_text(config_json + "\n")
