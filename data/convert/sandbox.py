"""Read the files that untrusted data may name: those inside one folder.

In: an image or a text as a row names it: a path, or its bytes, perhaps as a `data:` URL. Out: its
contents; an image is one that can be decoded. Any other URL, and a path that leads out of the
folder (absolute, by `..` or by a link), is refused: or else a downloaded table could put any file
of this machine into the training data.
"""

from pathlib import Path
from typing import Any

from unimodal.tokenizer.pixels import ImageError, open_image
from unimodal.tokenizer.signatures import HEAD_BYTES, image_kind

from ..data_url import embedded
from ..sample_error import SampleError

CHECKED = (64, 64)  # pixels: a JPEG is decoded no larger to find out whether it can be
MAX_BYTES = 1 << 28  # of one file; 64 million pixels of three bytes are fewer


class Sandbox:
    """Reads files inside a folder, and no others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def read(self, name: str) -> bytes:
        """Return the contents of a file named relative to the folder; SampleError where refused."""
        path = self._inside(name)
        try:
            if not path.is_file():
                raise SampleError("missing file", f"{name}: there is no such file in {self.folder}")
            if path.stat().st_size > MAX_BYTES:
                raise SampleError("too large", f"{name}: more than {MAX_BYTES >> 20} MiB")
        except OSError as error:
            raise SampleError("missing file", f"{name!r:.80}: {error.strerror}") from error
        try:
            return path.read_bytes()
        except PermissionError as error:  # any other error is the disk's, not the row's
            raise SampleError("missing file", f"{name}: no permission to read it") from error

    def head(self, name: str) -> bytes:
        """Return the first bytes of a file, none where it is refused: who reads it is told why."""
        try:
            path = self._inside(name)
            if not path.is_file():
                return b""
            with path.open("rb") as file:
                return file.read(HEAD_BYTES)
        except (SampleError, OSError):
            return b""

    def text(self, name: str) -> str:
        """Return the contents of a text file; SampleError where they are no UTF-8."""
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SampleError("no UTF-8", f"{name} is no UTF-8: {error}") from error

    def image(self, value: Any) -> tuple[str, bytes]:
        """Return (extension, contents) of an image: a path, bytes, or {"bytes", "path"}.

        A path may be a `data:` URL or base64, which holds the contents.
        The contents are unchanged; the extension is theirs, whatever the file's name says.
        SampleError where there is no such image, or it cannot be decoded.
        """
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path") or value.get("url")
        if isinstance(value, bytes):
            return _checked("the image", value)
        if not isinstance(value, str):
            raise SampleError("bad image", f"an image is a path or bytes, not {value!r:.80}")
        if (content := embedded(value)) is not None:
            return _checked(value[:40], content)
        return _checked(value, self.read(value))

    def _inside(self, name: str) -> Path:
        """Return the path of a name; SampleError where it does not lie inside the folder."""
        try:
            path = (self.folder / name).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a null byte, a loop of links
            raise SampleError("missing file", f"{name!r:.80} is no path: {error}") from error
        if not path.is_relative_to(self.folder):
            allowed = f"only files inside {self.folder} are read (see --images)"
            raise SampleError("outside", f"{name!r:.200} leads out of the folder: {allowed}")
        return path


def _checked(name: str, content: bytes) -> tuple[str, bytes]:
    """Return (extension, contents) of an image that can be decoded; SampleError else."""
    try:
        open_image(content, cover=CHECKED)
    except ImageError as error:
        raise SampleError("bad image", f"{name}: {error}") from error
    kind = image_kind(content)
    assert kind is not None, "what was opened is of a kind"
    return kind.suffixes[0], content
