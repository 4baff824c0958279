"""PNG files that say where they come from: model, words, seed.

No time is in them: the same request gives the same bytes, but for a signature (credentials.py).
"""

import base64

import numpy as np
from PIL import Image

from ..provenance import provenance, words_of
from ..transcript import png_bytes
from .job import Job
from .server import Server


def png_of(pixels: np.ndarray, job: Job, model_hash: str) -> bytes:
    """Return an image, uint8 (H, W, 3), that a job drew as a PNG file with its provenance."""
    height, width, _ = pixels.shape
    words = words_of(job.document, (width, height))
    return png_bytes(Image.fromarray(pixels), provenance(model_hash, words, job.sampling.seed))


def base64_of(pixels: np.ndarray, job: Job, server: Server) -> str:
    """Return the PNG file of an image in base64, signed where the server has a certificate."""
    content = png_of(pixels, job, server.model.hash)
    if server.credentials is not None:
        content = server.credentials.signed(content, server.name, server.model.hash)
    return base64.b64encode(content).decode("ascii")
