"""The page on which people choose: two images of one prompt, three buttons, three keys."""

import base64
import hashlib
from html import escape

from .arena import Due
from .votes import LEFT, RIGHT, TIE

KEYS = {LEFT: "1", RIGHT: "2", TIE: "0"}
WORDS = {LEFT: "left is better", RIGHT: "right is better", TIE: "equally good"}
SCRIPT = """
const keys = {1: "left", 2: "right", 0: "tie"};
document.addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = document.getElementById(keys[event.key]);
  if (button) button.click();
});
document.querySelector("form")?.addEventListener("submit", event => {
  if (document.body.dataset.sent) event.preventDefault();
  document.body.dataset.sent = "yes";
});
"""
STYLE = """
:root { color-scheme: light dark }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; font: 17px/1.4 system-ui, sans-serif;
  overflow-wrap: anywhere }
h1 { font-size: 1.3rem; margin: .3rem 0 1rem; text-align: center }
p { text-align: center; opacity: .75; margin: .3rem 0 }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
.pair img { width: 100%; max-height: 65vh; object-fit: contain; display: block }
.small img { image-rendering: pixelated }
form { display: grid; grid-template-columns: 1fr auto 1fr; gap: 1rem; margin-top: 1rem }
button { font: inherit; padding: .8rem .5rem; border-radius: .5rem; border: 1px solid;
  cursor: pointer; background: none; color: inherit }
kbd { display: inline-block; min-width: 1.5em; border: 1px solid; border-radius: .25em;
  margin-right: .4em; opacity: .7 }
"""
HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; script-src 'sha256-{HASH}'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def page(due: Due | None) -> str:
    """Return the page of the pair that is due, or the one that says that all are judged.

    Nothing on it tells A from B: images are called by number and side.
    """
    content = "<h1>All pairs are judged. Thank you.</h1>" if due is None else _pair(due)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Which image is better?</title><style>{STYLE}</style></head>"
        f"<body>{content}<script>{SCRIPT}</script></body></html>\n"
    )


def _pair(due: Due) -> str:
    images = "".join(
        f'<img alt="the image on the {side}" src="/image/{due.number}/{side}">'
        for side in (LEFT, RIGHT)
    )
    buttons = "".join(
        f'<button id="{choice}" name="choice" value="{choice}"><kbd>{KEYS[choice]}</kbd>'
        f"{WORDS[choice]}</button>"
        for choice in (LEFT, TIE, RIGHT)
    )
    small = " small" if due.is_small else ""
    return (
        f"<p>{due.number + 1} of {due.of}: which image shows this better?</p>"
        f"<h1>{escape(due.pair.prompt.text)}</h1>"
        f'<div class="pair{small}">{images}</div><form method="post" action="/vote">'
        f'<input type="hidden" name="number" value="{due.number}">{buttons}</form>'
    )
