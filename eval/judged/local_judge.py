"""A judge on this machine: any image-text-to-text model of `transformers`, from a folder.

1. The question follows the image in one turn of the user, by the model's own chat template; control
   tokens in a question stay text.
2. The probabilities are the softmax of the logits of the first token of the answer, float32, with
   no temperature, penalty or other setting of the checkpoint's own.
3. A word stands for the first token of its spelling alone, as GenEval 2's script has it.
"""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .judge import Begins, Begun, Judge, Look

WEIGHTS = "*.safetensors"


class LocalJudge(Judge):
    """A model and its processor."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Load both; ValueError, with what to get, where one cannot be had."""
        files = sorted(folder.glob(WEIGHTS))
        if not files:
            raise ValueError(
                f"no judge in {folder}: download an image-text-to-text model with its processor "
                "(such as Qwen/Qwen3-VL-8B-Instruct) and give its folder"
            )
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
            model, told = AutoModelForImageTextToText.from_pretrained(
                folder, local_files_only=True, dtype="auto", output_loading_info=True
            )
        except (OSError, KeyError, ValueError, ImportError, RuntimeError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"{folder} holds no image-text-to-text model that transformers reads here "
                f"({first_line}); where it asks for torchvision, install unimodal[metrics] into "
                "an environment of its own"
            ) from error
        if told["missing_keys"]:
            raise ValueError(
                f"{folder} lacks weights: {', '.join(sorted(told['missing_keys'])[:3])}"
            )
        self._tokenizer: Any = getattr(self._processor, "tokenizer", None)
        if self._tokenizer is None or not getattr(self._processor, "chat_template", None):
            raise ValueError(f"the processor of {folder} has no chat template: take a chat model")
        self._tokenizer.padding_side = "left"  # so that all answers begin in the same place
        self._model = model.eval().to(device)
        self._hash = _hash_of(files)
        self.name = f"{folder.resolve().name}-{self._hash[:8]}"

    def settings(self) -> dict[str, Any]:
        """Return the hash of the weights, their precision and the version of `transformers`."""
        return {
            "judge_hash": self._hash,
            "judge_precision": str(self._model.dtype).removeprefix("torch."),
            "judge_software": f"transformers {version('transformers')}",
        }

    @torch.inference_mode()
    def look(self, asked: Sequence[Look]) -> list[Begins]:
        """Return how probably each of the words begins the answer, to all questions in one pass."""
        inputs = self._processor.apply_chat_template(
            [_conversation(one) for one in asked],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"padding": True}, sanitize_control_tokens=True,
        ).to(self._model.device, dtype=self._model.dtype)  # fmt: skip
        made = self._model.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        p_BV = made.logits[0].float().softmax(dim=-1)
        if not bool(p_BV.isfinite().all()):
            raise ValueError(f"{self.name} answers with numbers that are not finite: its weights "
                             "are damaged, or its precision is too low")  # fmt: skip
        return [self._begins(p_V, one.words) for p_V, one in zip(p_BV, asked, strict=True)]

    def _begins(self, p_V: torch.Tensor, words: Sequence[str]) -> Begins:
        firsts = [self._tokenizer.encode(word, add_special_tokens=False)[0] for word in words]
        return {
            word: Begun(str(first), float(p_V[first]))
            for word, first in zip(words, firsts, strict=True)
        }


def _conversation(asked: Look) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": asked.image}, {"type": "text", "text": asked.question}]
    return [{"role": "user", "content": content}]


def _hash_of(files: Sequence[Path]) -> str:
    """Return the SHA-256 (hex) of the names and contents of files."""
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            found.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()
