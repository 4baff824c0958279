"""Begin to train an image tokenizer with the weights of another one of the same shape.

So codes are learned in two stages, as SEED's (arXiv 2307.08041, sec. 3) are: encoder and quantizer
learn from a vision backbone's features alone, then a decoder of its own learns to paint what the
codes say, while they stay as they are.
"""

from pathlib import Path

from unimodal import config as configuration
from unimodal.image_tokenizers import load_tokenizer, tokenizer_directory
from unimodal.tokenizer.autoencoder import CONFIG, ImageTokenizer, TokenizerConfig


def directory_of(weights: Path) -> Path:
    """Return the folder of an image tokenizer, which may be in that of the run that wrote it."""
    inner = weights / "tokenizer"
    return inner if (inner / CONFIG).is_file() else tokenizer_directory(weights)


def parent_of(weights: Path, shape: TokenizerConfig) -> ImageTokenizer:
    """Return the image tokenizer to begin with; ValueError where there is none, and where it has
    another shape.
    """
    found = load_tokenizer(directory_of(weights))
    if not isinstance(found, ImageTokenizer):
        raise ValueError(f"weights {weights}: a published image tokenizer cannot be trained here")
    differences = configuration.changes(found.config.spelled_out, shape.spelled_out)
    said = [f"model.{key} is {there} there and {here} here" for key, there, here in differences]
    if said:
        raise ValueError(f"weights {weights} are of another model: {'; '.join(said)}")
    return found


def begin_with(parent: ImageTokenizer, model: ImageTokenizer) -> None:
    """Take over the parent's weights, those of the decoder where both have one."""
    tensors = parent.state_dict()
    taken = {name: tensors[name] for name in model.state_dict() if name in tensors}
    model.load_state_dict(taken, strict=False)
