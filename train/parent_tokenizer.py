"""Begin to train an image tokenizer with the weights of another one of the same shape.

So codes are learned in two stages, as SEED's (arXiv 2307.08041, sec. 3) are: encoder and quantizer
learn from a vision backbone's features alone, then a decoder of its own learns to paint what the
codes say, while they stay as they are. That decoder may have another shape than the weights' own,
which is left out then.
"""

from pathlib import Path

from unimodal import config as configuration
from unimodal.image_tokenizers import load_tokenizer, tokenizer_directory
from unimodal.tokenizer.autoencoder import CONFIG, ImageTokenizer, TokenizerConfig


def directory_of(weights: Path) -> Path:
    """Return the folder of an image tokenizer, which may be in that of the run that wrote it."""
    inner = weights / "tokenizer"
    return inner if (inner / CONFIG).is_file() else tokenizer_directory(weights)


def parent_of(weights: Path, shape: TokenizerConfig, freeze_codes: bool = False) -> ImageTokenizer:
    """Return the image tokenizer to begin with; ValueError where there is none, and where it has
    another shape: with `freeze_codes`, another one of what makes codes.
    """
    found = load_tokenizer(directory_of(weights))
    if not isinstance(found, ImageTokenizer):
        raise ValueError(f"weights {weights}: a published image tokenizer cannot be trained here")
    differences = configuration.changes(found.config.spelled_out, shape.spelled_out)
    free = shape.spelled_out.autoencoder.decoder_fields if freeze_codes else ()
    said = [
        f"model.{key} is {there} there and {here} here"
        for key, there, here in differences
        if key.rpartition(".")[2] not in free
    ]
    if said:
        raise ValueError(f"weights {weights} are of another model: {'; '.join(said)}")
    return found


def begin_with(parent: ImageTokenizer, model: ImageTokenizer) -> None:
    """Take over the parent's weights, those of the decoder where both have one of one shape."""
    tensors = parent.state_dict()
    if parent.config.spelled_out != model.config.spelled_out:
        tensors = {name: x for name, x in tensors.items() if not name.startswith("decoder.")}
    taken = {name: tensors[name] for name in model.state_dict() if name in tensors}
    model.load_state_dict(taken, strict=False)
