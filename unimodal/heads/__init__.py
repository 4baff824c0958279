"""Image heads predict and draw images; each one is a file here, found by its name."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .head import ImageHead

FAMILIES = "unimodal.families."  # modules with heads of published models


def head_class(name: str, trusted: bool = False) -> "type[ImageHead]":
    """Return the class of an image head: for `next_code` it is NextCode of next_code.py.

    `module:Class` names a class outside this folder. Its module is imported only where the name
    comes from the user (`trusted`), or is one of unimodal's own; another name in a bundle is
    untrusted, and the user must have imported the module before. Raise ValueError where there is no
    such head.
    """
    from .head import ImageHead

    module, colon, wanted = name.partition(":")
    is_name = all(part.isidentifier() for part in module.split("."))
    if not colon:
        wanted = "".join(word.capitalize() for word in module.split("_"))
        module = f"{__name__}.{module}" if module.isidentifier() else ""
    elif not is_name:
        module = ""
    elif not trusted and module not in sys.modules and not module.startswith(FAMILIES):
        raise ValueError(f"image head {name!r}: import {module} first, if you trust it")
    try:
        found = getattr(import_module(module), wanted) if module else None
    except (ImportError, AttributeError) as error:
        raise ValueError(f"image head {name!r}: there is none of that name ({error})") from error
    if not (isinstance(found, type) and issubclass(found, ImageHead)):
        raise ValueError(f"image head {name!r}: a name in unimodal/heads, or module:Class of one")
    return found
