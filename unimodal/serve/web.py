"""The web page at /: the files of page/, read once, and the heads that they are sent with.

The page is a client like others: it speaks to the server's own API, at its own origin.
"""

from functools import cache
from pathlib import Path

from fastapi import Request
from fastapi.responses import Response

from .errors import ApiError

FOLDER = Path(__file__).parent / "page"
FIRST = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}  # fmt: skip
# Nothing from elsewhere, no code or style in the markup, and no text that becomes markup.
POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:",
    "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    "require-trusted-types-for 'script'", "trusted-types 'none'",
))  # fmt: skip
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@cache
def files() -> dict[str, tuple[bytes, str]]:
    """Return content and type of the page's files by name: what a client names is looked up here,
    and never on the disk.
    """
    found = sorted(path for path in FOLDER.iterdir() if path.suffix in TYPES)
    return {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in found}


async def show(request: Request) -> Response:
    """Answer with the page, or a file of it by its name."""
    found = files().get(request.path_params.get("file", FIRST))
    if found is None:
        raise ApiError(404, "there is nothing at this address")
    content, kind = found
    return Response(content, media_type=kind, headers=HEADERS)
