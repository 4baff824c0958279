"""config.json of a bundle: transformer, vocabulary, image grid, sampling; read and written."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unimodal.tokenizer.grid import Grid

from . import config
from .architecture import Architecture, ImageConfig
from .claims import excess_of_bundle
from .families.fits import Fit
from .manifest import FORMAT, BundleError, read_json, write_json
from .sampling import Sampling
from .transformer import TransformerConfig
from .vocabulary import Vocabulary

SAMPLING = Sampling()
# The special tokens of format 1, by id: not SPECIAL_TOKENS, which others may join.
FORMAT_1_TOKENS = (
    "pad", "begin", "end", "system", "user", "assistant", "turn_end", "image", "image_end",
    "row_end", "null", *(f"size_{side}" for side in range(1, 65)),
)  # fmt: skip


@dataclass(frozen=True)
class BundleConfig:
    """A BundleConfig is the content of config.json."""

    transformer: TransformerConfig
    vocabulary: Vocabulary
    grid: Grid
    sampling: Sampling
    context: int
    tokenizer_hash: str
    image: ImageConfig = field(default_factory=ImageConfig)
    fit: Fit | None = None
    """How given images are resized; None: to the pixels of the grid, cropped."""
    format: int = FORMAT

    @property
    def architecture(self) -> Architecture:
        """Return the architecture, which determines the model's parameters."""
        return Architecture(self.transformer, self.vocabulary, self.image)


def write_config(path: Path, bundle_config: BundleConfig) -> None:
    """Write a config.json; what older versions lack is left out where it is what they assume."""
    values = asdict(bundle_config)
    if bundle_config.fit is None:
        del values["fit"]
    newer: dict[str, tuple[Any, tuple[str, ...]]] = {
        "transformer": (
            TransformerConfig,
            ("rope", "head_norms", "post_norm", "residual_lambdas", "value_embeddings",
             "joint_qk_norm", "norm_places", "centred_norms", "scaled_embedding", "activation",
             "rope_layers", "local_rope_theta", "rotary_width", "score_width", "query_beta",
             "experts", "joined_export"),
        ),
        "image": (
            ImageConfig(),
            ("code_rows", "code_width", "latent_width", "masked", "flow", "boxes", "two_way",
             "tower"),
        ),
        "sampling": (
            SAMPLING,
            ("negative", "image_steps", "image_drafts", "image_solver", "guidance_interval",
             "image_guidance", "max_plan_tokens"),
        ),
    }  # fmt: skip
    for section, (plain, names) in newer.items():
        for name in names:
            if getattr(getattr(bundle_config, section), name) == getattr(plain, name):
                del values[section][name]
    if (rope := values["transformer"].get("rope")) and not rope["factors"]:
        del rope["factors"]
    write_json(path, values)


def read_config(path: Path) -> BundleConfig:
    """Return the content of a config.json.

    Raise BundleError where it is damaged or of another version.
    """
    values = read_json(path)
    if isinstance(values, dict) and (problem := excess_of_bundle(path, values)):
        raise BundleError(f"{path}: {problem}")
    if isinstance(values, dict) and values.get("format") == 1:
        values = _of_format_1(path, values)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise BundleError(f"{path} is not of format {FORMAT}: update unimodal or the bundle")
    try:
        return config.of_tree(BundleConfig, values)
    except config.ConfigError as error:
        raise BundleError(f"{path}: {error}\nit does not fit this version of unimodal") from error


def _of_format_1(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json of format 1 in the present format.

    Format 1 had no table of special tokens: ids were text, then FORMAT_1_TOKENS, then codes.
    """
    try:
        sizes, sampling = values["vocabulary"], dict(values["sampling"])
        num_text, num_codes = sizes["num_text"], sizes["num_codes"]
        special = {name: num_text + at for at, name in enumerate(FORMAT_1_TOKENS)}
        vocabulary = Vocabulary(num_text, special, ((num_text + len(special), num_codes),))
        sampling["max_images"] = sampling.pop("max_pictures")
    except (KeyError, TypeError) as error:
        raise BundleError(f"{path} is damaged ({error!r}): fetch the bundle again") from error
    table = {**asdict(vocabulary), "code_runs": [list(run) for run in vocabulary.code_runs]}
    return {**values, "vocabulary": table, "sampling": sampling, "format": FORMAT}
