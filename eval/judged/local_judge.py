"""A judge on this machine: any image-text-to-text model of `transformers`, from a folder.

1. The question follows the image in one turn of the user, by the model's own chat template; control
   tokens in a question stay text.
2. The probabilities are the softmax of the logits of the first token of the answer, float32, with
   no temperature, penalty or other setting of the checkpoint's own.
3. A word stands for the first token of its spelling alone, as GenEval 2's script has it.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..answerers.pretrained import hash_of, load
from .judge import Begins, Begun, Judge, Look


class LocalJudge(Judge):
    """A model and its processor."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Load both; ValueError, with what to get, where one cannot be had."""
        self._processor, self._model = load(folder, "auto")
        self._tokenizer: Any = self._processor.tokenizer
        self._model.eval().to(device)
        self._hash = hash_of(folder)
        self.name = f"{folder.resolve().name}-{self._hash[:8]}"

    def settings(self) -> dict[str, Any]:
        """Return the hash of the files, their precision and the version of `transformers`."""
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
