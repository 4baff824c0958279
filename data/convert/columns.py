"""Find out which columns of a table say what.

In: the names of a table's columns, and those that the user named. Out: the stored format
(formats.py) that the rows have, and the columns that fill its roles.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..fields import NAMES, OF_IMAGES

SIZES = ("width", "height", "original_width", "original_height")
# The roles that a format needs, in the order in which formats are looked for.
NEEDED = {
    "document": ("parts",),
    "interleaved": ("texts", "images"),
    "llava": ("conversations",),
    "chat": ("messages",),
    "edit": ("before", "after", "instruction"),
    "question": ("question", "answer"),
    "caption": ("image", "caption"),
    "text": ("text",),
}
CONVERSATIONS, PAIRS = "conversations", "pairs"  # what captions become
MAY_HAVE_IMAGES = ("document", "llava", "chat", "question")
# The roles that a user can name, and what stands in their columns.
ASKED = {
    "image": "the image's path; repeatable, for several images",
    "caption": "what is said of the image",
    "question": "what is asked, about the image if there is one",
    "answer": "its answer",
    "before": "the image before an edit",
    "after": "the image after it",
    "instruction": "what was to be changed",
    "text": "plain text, of rows without images",
}


@dataclass(frozen=True)
class Columns:
    """The format of rows, and the columns of each of its roles."""

    format: str
    roles: tuple[tuple[str, tuple[str, ...]], ...]

    def __getitem__(self, role: str) -> tuple[str, ...]:
        """Return the columns of a role, none where it has none."""
        return dict(self.roles).get(role, ())

    def __str__(self) -> str:
        filled = [f"{role} = {' + '.join(names)}" for role, names in self.roles if names]
        return f"{self.format}: {', '.join(filled)}"


def detect_columns(
    names: Collection[str],
    asked: Mapping[str, tuple[str, ...]],
    typed: Collection[str] = (),
    format: str | None = None,
) -> Columns:
    """Return the format and roles of columns by their names; ValueError where they fit none.

    `asked`: the columns that the user named, by role. `typed`: those that are images by their
    type, whatever their name. `format` None: the first format whose roles are all there.
    """
    for role, columns in asked.items():
        for column in columns:
            if column not in names:
                raise ValueError(f"--{role} {column}: {_listed(names)}")
    kinds = [kind for kind in NEEDED if format in (None, kind) and set(asked) <= set(_roles(kind))]
    if not kinds:
        together = " and ".join(f"--{role}" for role in asked)
        whose = f"the format {format} does not have" if format else "no format has"
        raise ValueError(f"{whose} {together}{'' if format else ' together'}: leave one out")
    for kind in kinds:
        roles = {role: asked.get(role) or _found(role, names, typed) for role in _roles(kind)}
        if all(roles[role] for role in NEEDED[kind]):
            return Columns(kind, tuple(roles.items()))
    wanted = f"the format {format}" if format else f"one of {', '.join(NEEDED)}"
    way_out = " ".join(
        f"--{role} COLUMN" for role in ASKED if format is None or role in NEEDED[format]
    )
    raise ValueError(f"no columns of {wanted}: {_listed(names)}; name them by {way_out}")


def _roles(format: str) -> tuple[str, ...]:
    """Return the roles of a format, those that may be empty included."""
    return NEEDED[format] + (("image",) if format in MAY_HAVE_IMAGES else ())


def _found(role: str, names: Collection[str], typed: Collection[str]) -> tuple[str, ...]:
    """Return the columns that fill a role by name, or else, of images, by type, or their URL."""
    lower = {name.lower().strip(): name for name in reversed(list(names))}
    first = next((lower[name] for name in NAMES[role] if name in lower), None)
    if first is not None:
        return (first,)
    if role != "image":
        return ()
    is_of_images = any(name in lower for name in (*SIZES, *OF_IMAGES))  # and no page of text
    return tuple(typed) or ((lower["url"],) if "url" in lower and is_of_images else ())


def _listed(names: Collection[str]) -> str:
    return f"the columns are {', '.join(map(repr, names)):.500}" if names else "there is no column"
