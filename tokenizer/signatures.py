"""Tell what kind of image a file is by its bytes, whatever its name says.

In: the contents of a file, or of a stream. Out: its `Kind`: whether it is read, by which decoder,
and if not, why. Patterns are as strict as the formats allow, for they tell images from texts.
"""

import re
from dataclasses import dataclass
from typing import BinaryIO

HEAD_BYTES = 1024  # in which every kind but TGA shows itself
TGA_END = b"TRUEVISION-XFILE.\0"  # of version 2; older ones have no mark at all


@dataclass(frozen=True)
class Kind:
    """A format of image files."""

    name: str
    """Pillow's name of it, where it is read."""
    suffixes: tuple[str, ...]
    """How its files end, without the dot; the usual one first."""
    begins: re.Pattern[bytes]
    refusal: str = ""
    """Why it is not read, and the way out; empty: it is read."""


def _kind(name: str, suffixes: str, begins: bytes, refusal: str = "") -> Kind:
    return Kind(name, tuple(suffixes.split()), re.compile(begins, re.DOTALL), refusal)


SAVE = "save it as PNG or JPEG"
RAW = f"what a camera's sensor saw: develop it, and {SAVE}"
BOX = rb".{4}ftyp"  # ISO 14496-12: a size, this word, a brand, a version, compatible brands
KINDS = (
    _kind("PNG", "png apng", rb"\x89PNG"),
    _kind("JPEG", "jpg jpeg jpe jfif jfi jif mpo", rb"\xff\xd8\xff"),
    _kind("WEBP", "webp", rb"RIFF.{4}WEBP"),
    _kind("GIF", "gif", rb"GIF8"),
    _kind("BMP", "bmp", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    _kind("TIFF", "tif tiff", rb"II[*+]\0|MM\0[*+]"),
    _kind("HEIF", "heic heif hif heics heifs", BOX + rb"(?:hei[cxms]|hev[cxms]|m[is]f1)"),
    _kind("AVIF", "avif avifs", BOX + rb"(?:avi[fs]|m[is]f1.{4}(?:.{4}){0,16}?avi[fs])"),
    _kind("JPEG2000", "jp2 j2k jpf jpx j2c jpc",
          rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    _kind("PPM", "ppm pgm pbm pnm pfm",
          rb"P[1-6fFy]\s(?:\s|#[^\n]*\n)*\d+\s(?:\s|#[^\n]*\n)*\d+\s"),
    _kind("QOI", "qoi", rb"qoif"),
    _kind("ICO", "ico", rb"\0\0\x01\0[^\0]\0"),
    _kind("CUR", "cur", rb"\0\0\x02\0[^\0]\0"),
    _kind("ICNS", "icns", rb"icns"),
    _kind("DIB", "dib", rb"\x28\0\0\0.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0"),
    _kind("PCX", "pcx", rb"\n[\0\x02\x03\x04\x05]\x01[\x01\x02\x04\x08]"),
    _kind("PSD", "psd", rb"8BPS\0\x01"),
    _kind("SGI", "sgi bw rgb rgba", rb"\x01\xda[\0\x01][\x01\x02]"),
    _kind("SUN", "ras", rb"\x59\xa6\x6a\x95"),
    _kind("DDS", "dds", rb"DDS \x7c\0\0\0"),
    _kind("TGA", "tga icb vda vst", rb"(?!)"),  # told by its end
    _kind("JPEG XL", "jxl", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", SAVE),
    _kind("SVG", "svg svgz",
          rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*|<!DOCTYPE[^>]*>\s*)*<svg[\s>]",
          f"a drawing without pixels: {SAVE}"),
    _kind("EPS", "eps", rb"%!PS-Adobe|\xc5\xd0\xd3\xc6", f"a program for printers: {SAVE}"),
    _kind("WMF", "wmf emf", rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF",
          f"a drawing without pixels: {SAVE}"),
    _kind("OpenEXR", "exr", rb"\x76\x2f\x31\x01", f"its white is not defined: {SAVE}"),
    _kind("Radiance", "hdr", rb"#\?R(?:ADIANCE|GBE)", f"its white is not defined: {SAVE}"),
    _kind("FITS", "fits fit", rb"SIMPLE  = ", f"its white is not defined: {SAVE}"),
    _kind("camera raw", "cr2 cr3 nef arw dng orf rw2 raf pef srw",
          rb"II\*\0.{4}CR\x02|" + BOX + rb"crx |FUJIFILMCCD-RAW|IIRO|IIU\0", RAW),
)  # fmt: skip
READ = tuple(kind.name for kind in KINDS if not kind.refusal)
SUFFIXES = frozenset(suffix for kind in KINDS for suffix in kind.suffixes)
"""How files of images end, in lower case; of those that are not read too."""
BY_END = next(kind for kind in KINDS if kind.name == "TGA")


def image_kind(content: bytes) -> Kind | None:
    """Return the kind of a file's contents; None where they are no image that is known."""
    head = content[:HEAD_BYTES]
    found = [kind for kind in KINDS if kind.begins.match(head)]
    if found:
        return found[-1]  # AVIF is a HEIF, and camera raw files may be a TIFF
    return BY_END if content.endswith(TGA_END) else None


def stream_kind(stream: BinaryIO) -> Kind | None:
    """Return the kind of the file behind a stream, which is left where it was."""
    start = stream.tell()
    head = stream.read(HEAD_BYTES)
    end = b""
    if len(head) == HEAD_BYTES:
        stream.seek(-len(TGA_END), 2)
        end = stream.read()
    stream.seek(start)
    return image_kind(head + end if end else head)
