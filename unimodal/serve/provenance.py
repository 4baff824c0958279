"""PNG files that say where they come from: model, words, seed.

No time is in them: the same request gives the same bytes, but for a signature (credentials.py).
"""

import base64
import hashlib
import io

import numpy as np
from PIL import Image, PngImagePlugin

from .. import document
from ..boxes import spelled
from ..document import Document
from .job import Job
from .server import Server


def words_of(asked: Document, size: tuple[int, int]) -> str:
    """Return the user's latest words, joined by spaces; boxes as they are written for a drawing of
    (width, height) pixels.
    """
    for role, parts in reversed(asked.turns()):
        if role == "user":
            texts = [part for part in parts if isinstance(part, document.Text)]
            return " ".join(one.text if one.box is None else spelled(one, size) for one in texts)
    return ""


def png_of(pixels: np.ndarray, job: Job, model_hash: str) -> bytes:
    """Return an image, uint8 (H, W, 3), that a job drew as a PNG file with its provenance."""
    noted = PngImagePlugin.PngInfo()
    height, width, _ = pixels.shape
    words = words_of(job.document, (width, height))
    noted.add_text("Software", "unimodal")
    noted.add_text("unimodal:model", model_hash)
    noted.add_text("unimodal:prompt-sha256", hashlib.sha256(words.encode()).hexdigest())
    noted.add_text("unimodal:seed", str(job.sampling.seed))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", pnginfo=noted)
    return stream.getvalue()


def base64_of(pixels: np.ndarray, job: Job, server: Server) -> str:
    """Return the PNG file of an image in base64, signed where the server has a certificate."""
    content = png_of(pixels, job, server.model.hash)
    if server.credentials is not None:
        content = server.credentials.signed(content, server.name, server.model.hash)
    return base64.b64encode(content).decode("ascii")
