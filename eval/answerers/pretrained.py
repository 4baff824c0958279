"""An image-text-to-text model of `transformers`, by path or by id of the hub.

In: questions. Out: its words, the likeliest token always, in the model's own chat template.

1. Code that comes with a model is never run, and weights are safetensors alone.
2. Texts of questions are encoded as text: what spells a control token or the place of an image
   stays words (`sanitize_control_tokens`).
3. Questions of a batch are padded on the left and masked, those with equally many images together.
   In float32 a batch changes no answer; in half precision near ties can fall either way.
"""

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage

from unimodal.document import Document, Image, Text
from unimodal.hub.checkpoint import fetch

from ..loading import quiet_loading
from ..score import digest
from .answerer import UNKNOWN, Answerer, Question
from .options import PRECISIONS

WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")  # neither pickles nor code
CHUNK_BYTES = 1 << 24


class Pretrained(Answerer):
    """A model and its processor, ready to answer."""

    kind = "transformers"

    def __init__(
        self,
        source: str,
        device: str = "cpu",
        precision: str = "float32",
        revision: str | None = None,
    ) -> None:
        """Load it; ValueError where `transformers` cannot, or it is no model of images and text.

        source: a folder, or an id of the hub; revision: a branch, tag or commit there.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r}: one of {', '.join(PRECISIONS)}")
        self._name, self._device, self._precision = source, device, precision
        self._folder = fetch(source, WANTED, revision)
        self._processor, self._model = load(self._folder, getattr(torch, precision))
        self._model.to(device).eval()
        self._room = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._hash = hash_of(self._folder)

    def identity(self) -> dict[str, str]:
        """Return name, the hub's commit, and the hash of all files that were loaded."""
        in_hub = self._folder.parent.name == "snapshots"
        revision = self._folder.name if in_hub else UNKNOWN
        return {"model": self._name, "revision": revision, "hash": self._hash}

    def settings(self) -> dict[str, Any]:
        """Return its identity, and where and how precisely it was computed."""
        return {
            **super().settings(),
            "device": torch.device(self._device).type,
            "precision": self._precision,
        }

    def answers(self, questions: Sequence[Question], max_tokens: int) -> list[str]:
        """Return its answers; questions with equally many images are computed together."""
        found: dict[int, str] = {}
        groups: dict[int, list[int]] = {}
        for at, question in enumerate(questions):
            count = sum(isinstance(part, Image) for part in question.document.parts)
            groups.setdefault(count, []).append(at)
        for places in groups.values():
            said = self._together([questions[at] for at in places], max_tokens)
            found |= dict(zip(places, said, strict=True))
        return [found[at] for at in range(len(questions))]

    @torch.inference_mode()
    def _together(self, questions: Sequence[Question], max_tokens: int) -> list[str]:
        inputs = self._processor.apply_chat_template(
            [[_message(question.document)] for question in questions],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            sanitize_control_tokens=True, processor_kwargs={"padding": True},
        ).to(self._device, dtype=self._model.dtype)  # fmt: skip
        length = inputs["input_ids"].shape[1]
        if self._room is not None and length + max_tokens > self._room:
            ids = ", ".join(question.id for question in questions[:3])
            raise ValueError(
                f"a question takes {length} tokens and its answer {max_tokens}, but {self._name} "
                f"reads {self._room} (among {ids}): give smaller images by --target-pixels"
            )
        ids_BT = self._model.generate(
            **inputs, max_new_tokens=max_tokens, do_sample=False, num_beams=1,
            logits_processor=[_refuse_nan],
        )  # fmt: skip
        return self._processor.batch_decode(ids_BT[:, length:], skip_special_tokens=True)


def load(folder: Path, dtype: torch.dtype | str) -> tuple[Any, Any]:
    """Return processor and model; ValueError with what `transformers` says, or what is missing.

    dtype: of the weights; "auto" is as they are stored.
    """
    if not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"no weights in safetensors in {folder}: download an image-text-to-text model with its "
            "processor (such as Qwen/Qwen3-VL-8B-Instruct) and give its folder"
        )
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        with quiet_loading():
            model, told = AutoModelForImageTextToText.from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True, dtype=dtype,
                output_loading_info=True,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ValueError(
            f"{folder} is no image-text-to-text model of transformers that needs no code of its "
            f"own, with weights in safetensors ({error}); where torchvision is asked for, install "
            "unimodal[metrics] into an environment of its own"
        ) from error
    if told["missing_keys"]:
        raise ValueError(f"{folder} lacks weights: {', '.join(sorted(told['missing_keys'])[:3])}")
    _check(folder, processor)
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor, model


def _check(folder: Path, processor: Any) -> None:
    """Raise ValueError where the processor cannot make a prompt of questions safely."""
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ValueError(f"{folder} has no processor of images and text")
    if processor.chat_template is None:
        raise ValueError(f"{folder} has no chat template, which says how it is asked")
    if "sanitize_control_tokens" not in inspect.signature(processor.apply_chat_template).parameters:
        raise ValueError(
            f"the processor of {folder} cannot keep control tokens out of texts "
            "(sanitize_control_tokens): a newer transformers can"
        )


def _message(document: Document) -> dict[str, Any]:
    """Return the user's turn in the form that chat templates take."""
    content: list[dict[str, Any]] = []
    for part in document.parts:
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        else:
            assert part.pixels is not None, "evaluators show pixels"
            content.append({"type": "image", "image": PILImage.fromarray(part.pixels)})
    return {"role": "user", "content": content}


def _refuse_nan(ids_BT: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
    """Return the scores as they are; ValueError where one is NaN, which would still be argmax."""
    if scores_BV.isnan().any():
        raise ValueError("the model's scores are NaN: it is broken, or needs --precision float32")
    return scores_BV


def hash_of(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of the files that are loaded."""
    files = sorted({file for pattern in WANTED for file in folder.glob(pattern)})
    return digest([file.name, _sha256(file)] for file in files)


def _sha256(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()
