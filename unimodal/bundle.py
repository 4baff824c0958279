"""A trained model as one directory, and back: weights, vocabulary, both tokenizers, provenance.

    model.safetensors       the transformer, bfloat16 at rest, float32 in use; a grown model has
                            the dtype that it came with, and perhaps several files with an index
    tokenizer.safetensors   the image tokenizer, its configuration in tokenizer.json
    text.json               the text tokenizer; a grown model has text.tokenizer.json or
                            text.tokenizer.model, its family's own
    config.json             transformer, vocabulary, context, image grid, sampling defaults
    card.json, README.md    where it comes from and how well it does
    manifest.json           size and sha256 of every file above

Loading checks the manifest first, so a missing, cut, altered or foreign file is named before
anything is built from it. Saving writes a new directory beside the old one, loads it once to prove
it whole, and only then renames it into place. Nothing is ever unpickled.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid

from . import config, manifest
from .atomic import replacing
from .card import check_card, readme
from .embedder import CodeReader, Reader
from .generation import Sampling
from .heads.next_code import Drawer, NextCode
from .manifest import FORMAT, MANIFEST, TEXT_FAMILIES, BundleError, read_json, write_json
from .sequence import Sequencer
from .tensors import SINGLE, weight_files
from .text import TextTokenizer
from .transformer import Transformer, TransformerConfig
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from .chat import Chat

PARTS = ("config.json", "tokenizer.json", "tokenizer.safetensors", "card.json")
DEFAULT = Path(__file__).parent / "default"
GRID = Grid(8, 8)  # 64 x 64 pixels of patches of 8
SAMPLING = Sampling()


@dataclass(frozen=True, eq=False)
class Model:
    """Everything a conversation, an evaluation or an export needs of a trained model."""

    transformer: Transformer  # float32, in evaluation mode
    vocabulary: Vocabulary
    text: TextTokenizer
    tokenizer: ImageTokenizer
    sequencer: Sequencer
    sampling: Sampling  # defaults that its makers chose
    context: int  # positions a sequence may take
    grid: Grid  # of the images it draws
    card: dict[str, Any]  # provenance and scores
    hash: str  # hex sha256 of all files but card and README

    @property
    def canvas(self) -> tuple[int, int]:
        """(width, height) in pixels of the images it draws and is given."""
        return self.grid.width * self.tokenizer.patch, self.grid.height * self.tokenizer.patch

    @property
    def reader(self) -> Reader:
        """How images enter the transformer."""
        return CodeReader()

    @property
    def drawer(self) -> Drawer:
        """How images are predicted."""
        return NextCode(self.vocabulary)

    def chat(self, **changes: Any) -> "Chat":
        """A new conversation; `changes` replace fields of the sampling defaults, such as seed=1."""
        from .chat import Chat

        return Chat(self, replace(self.sampling, **changes))

    def save(self, directory: str | Path) -> Path:
        """Write it as a bundle: `save_bundle` with all that this model knows of itself."""
        return save_bundle(
            directory,
            self.transformer,
            self.vocabulary,
            self.text,
            self.tokenizer,
            self.card,
            context=self.context,
            grid=self.grid,
            sampling=self.sampling,
        )


@dataclass(frozen=True)
class Layout:
    """What config.json holds."""

    transformer: TransformerConfig
    vocabulary: Vocabulary
    grid: Grid
    sampling: Sampling
    context: int
    tokenizer_hash: str
    format: int = FORMAT


def load(path: str | Path | None = None, device: str | torch.device = "cpu") -> Model:
    """The model in the directory `path` (None: the one shipped with unimodal), ready on `device`.

    BundleError names the file that is missing, cut, altered, foreign or does not fit the others.
    """
    directory = DEFAULT if path is None else Path(path)
    parts = read_parts(directory)
    try:
        transformer = _read_transformer(directory, parts.layout.transformer).to(device).eval()
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{directory}: its files do not fit each other ({error})") from error
    layout, hash = parts.layout, parts.hash
    assert hash is not None, "a bundle that was checked has a hash"
    return Model(
        transformer=transformer,
        vocabulary=layout.vocabulary,
        text=parts.text,
        tokenizer=parts.tokenizer.to(device),
        sequencer=Sequencer(layout.vocabulary, parts.text, parts.tokenizer.hash),
        sampling=layout.sampling,
        context=layout.context,
        grid=layout.grid,
        card=parts.card,
        hash=hash,
    )


@dataclass(frozen=True, eq=False)
class Parts:
    """All of a bundle but its weights, which may be larger than memory."""

    layout: Layout
    text: TextTokenizer
    tokenizer: ImageTokenizer
    card: dict[str, Any]
    hash: str | None = None  # as Model's; None where the weights are elsewhere


def read_parts(directory: Path) -> Parts:
    """What a bundle holds beside its weights, after checking every file; errors as those of
    `load`.
    """
    files = _read_manifest(directory)
    manifest.check(directory, files)
    return replace(read_loose_parts(directory), hash=manifest.model_hash(files))


def read_loose_parts(directory: Path) -> Parts:
    """What lies in a directory of a bundle's files, PARTS and a text tokenizer, unchecked."""
    layout = _read_layout(directory / "config.json")
    text = _read_text(directory, layout.vocabulary.num_text)
    try:
        tokenizer = ImageTokenizer.load(directory).eval()
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{directory}: its files do not fit each other ({error})") from error
    _check_parts(directory, layout, text, tokenizer)
    return Parts(layout, text, tokenizer, read_json(directory / "card.json"))


def save_bundle(
    directory: str | Path,
    transformer: Transformer,
    vocabulary: Vocabulary,
    text: TextTokenizer,
    tokenizer: ImageTokenizer,
    card: dict[str, Any],
    *,
    context: int = 2048,
    grid: Grid = GRID,
    sampling: Sampling = SAMPLING,
) -> Path:
    """Write a bundle and return its directory; an older bundle there is replaced in one step.

    `card` needs the keys card.KEYS. BundleError when the directory holds something else, or when
    the disk is full; then what was there before is untouched.
    """
    directory = Path(directory)
    check_card(card)
    _check_target(directory)
    layout = Layout(transformer.config, vocabulary, grid, sampling, context, tokenizer.hash)

    def fill(fresh: Path) -> None:
        _write_weights(fresh / SINGLE, transformer)
        write_parts(fresh, layout, text, tokenizer, card)
        load(fresh)

    publish(directory, fill)
    return directory


def write_parts(
    fresh: Path,
    layout: Layout,
    text: TextTokenizer,
    tokenizer: ImageTokenizer,
    card: dict[str, Any],
) -> None:
    """Write into a directory that holds the weights all else that makes it a bundle."""
    tokenizer.save(fresh)
    text.save(fresh / text.FILE)
    write_json(fresh / "config.json", _stored(layout))
    write_json(fresh / "card.json", card)
    (fresh / "README.md").write_text(readme(card), encoding="utf-8")
    manifest.write(fresh)


def publish(directory: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a new directory beside `directory`, and rename it there once it is whole.

    BundleError when it cannot be written; then nothing has changed.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with replacing(directory, over_folder=True) as fresh:
            fresh.mkdir()
            fill(fresh)
            for file in fresh.rglob("*"):
                if file.is_file():
                    file.chmod(0o644)  # safetensors' are its owner's alone
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"cannot write {directory}: {error}; nothing was changed there, free some"
            " space or choose another place"
        ) from error


def _stored(layout: Layout) -> dict[str, Any]:
    """A layout as config.json has it: a setting that came later is not named where it is off."""
    values = asdict(layout)
    if layout.transformer.rope is None:
        del values["transformer"]["rope"]
    return values


def _read_manifest(directory: Path) -> manifest.Files:
    """The manifest of a bundle, which must be there."""
    if not (directory / MANIFEST).is_file():
        if directory == DEFAULT:
            raise BundleError(
                f"no default model is installed in {DEFAULT}: name a bundle's directory,"
                " or train one with `make speedrun`"
            )
        what = "it has no manifest.json" if directory.is_dir() else "there is no such directory"
        raise BundleError(
            f"{directory} is no model: {what}; give the directory that a training run wrote, or"
            " no path at all for the default model"
        )
    return manifest.read(directory)


def _read_layout(path: Path) -> Layout:
    stored = read_json(path)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise BundleError(f"{path} is not of format {FORMAT}: update unimodal or the bundle")
    try:
        return config.load(Layout, path)
    except config.ConfigError as error:
        raise BundleError(f"{error}\nit does not fit this version of unimodal") from error


def _read_text(directory: Path, num_ids: int) -> TextTokenizer:
    names = [name for name in TEXT_FAMILIES if (directory / name).is_file()]
    if len(names) != 1:
        raise BundleError(f"{directory} holds {len(names)} text tokenizers instead of one")
    (name,) = names
    try:
        return TEXT_FAMILIES[name].load(directory / name, num_ids)
    except Exception as error:  # `tokenizers` raises nothing more precise
        raise BundleError(f"{directory / name} is no text tokenizer: {error}") from error


def _read_transformer(directory: Path, config: TransformerConfig) -> Transformer:
    with torch.device("meta"):  # nothing is drawn that the file's weights would replace
        transformer = Transformer(config)
    weights: dict[str, Tensor] = {}
    for path in weight_files(directory):
        # Copies: what load_file gives may still be the file, at an odd address.
        files = load_file(path).items()
        weights |= {name: tensor.to(torch.float32, copy=True) for name, tensor in files}
    transformer.load_state_dict(weights, assign=True)
    return transformer


def _write_weights(path: Path, transformer: Transformer) -> None:
    state = transformer.state_dict()
    save_file({name: t.detach().cpu().bfloat16().contiguous() for name, t in state.items()}, path)


def _check_parts(
    directory: Path, layout: Layout, text: TextTokenizer, tokenizer: ImageTokenizer
) -> None:
    """The parts are those that the model was trained with."""
    if tokenizer.hash != layout.tokenizer_hash:
        raise BundleError(
            f"{directory / 'tokenizer.safetensors'} is another image tokenizer"
            f" ({tokenizer.hash[:12]}) than the model was trained with"
            f" ({layout.tokenizer_hash[:12]}): put the right one back"
        )
    vocabulary = layout.vocabulary
    sizes = {
        text.FILE: (text.num_ids, vocabulary.num_text),
        "tokenizer.json": (tokenizer.num_codes, vocabulary.num_codes),
        "model.safetensors": (layout.transformer.num_ids, vocabulary.size),
    }
    for name, (found, expected) in sizes.items():
        if found != expected:
            raise BundleError(
                f"{directory / name} has {found} ids, the vocabulary in config.json {expected}"
            )


def _check_target(directory: Path) -> None:
    """Only an older bundle, an empty directory or nothing may be written over."""
    if directory.exists() and not directory.is_dir():
        raise BundleError(f"{directory} is a file: choose another place for the bundle")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        raise BundleError(f"{directory} holds something that is no bundle: choose another place")
