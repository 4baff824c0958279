"""One decoder-only transformer that reads and writes text and images.

    import unimodal

    chat = unimodal.Chat(unimodal.load())
    reply = chat("draw two red circles")

The public names below are imported when first used, so that `import unimodal` imports no torch. It
looks who else is running (threads.py), which takes some milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .threads import keep_numpy_to_one_thread, sleep_beside_neighbours

if TYPE_CHECKING:
    from .bundle import BundleError, load, save_bundle
    from .chat import Chat
    from .document import Document, Image, Text
    from .generation import Generation
    from .model import Model
    from .sampling import Sampling

__all__ = [
    "BundleError",
    "Chat",
    "Document",
    "Generation",
    "Image",
    "Model",
    "Sampling",
    "Text",
    "load",
    "save_bundle",
]

_HOME = {
    "BundleError": ".bundle",
    "Chat": ".chat",
    "Document": ".document",
    "Generation": ".generation",
    "Image": ".document",
    "Model": ".model",
    "Sampling": ".sampling",
    "Text": ".document",
    "load": ".bundle",
    "save_bundle": ".bundle",
}

sleep_beside_neighbours()
keep_numpy_to_one_thread()


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'unimodal' has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)
