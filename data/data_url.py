"""Read images that stand inside a text: `data:` URLs (RFC 2397) and base64 (RFC 4648).

In: a text that names an image. Out: its contents, or nothing where it is a path. Nothing is
fetched: any other URL is refused, with the way out.
"""

import base64
import binascii
import re

from .sample_error import SampleError

URL = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*://|//)")
DATA_URL = re.compile(r"\s*data:([^,]*),", re.IGNORECASE)
HEADS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")  # of PNG, JPEG, GIF and WebP in base64
MIN_BASE64 = 64  # letters: no image is shorter, and few paths begin like one and are longer
BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")


def embedded(named: str) -> bytes | None:
    """Return the contents of an image that stands inside the text, None for a path.

    SampleError for a URL of another kind, and for what is no base64.
    """
    if found := DATA_URL.match(named):
        if not found[1].lower().endswith(";base64"):
            message = f"{named[:80]!r}: a data: URL of an image ends its head with ;base64"
            raise SampleError("bad image", message)
        return decoded(named[found.end() :])
    if URL.match(named):
        raise SampleError(
            "a URL",
            f"{named!r:.120}: nothing is fetched while data is read; download the images "
            "(docs/formats.md says how), write their paths in place of the URLs and name their "
            "folder by --images",
        )
    is_base64 = named.startswith(HEADS) and len(named) >= MIN_BASE64 and BASE64.fullmatch(named)
    return decoded(named) if is_base64 else None


def decoded(text: str) -> bytes:
    """Return the bytes of base64, white space in it left out; SampleError where it is none."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SampleError("bad image", f"{text[:40]!r}...: no base64: {error}") from error
