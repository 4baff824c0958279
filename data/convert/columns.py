"""Find out which columns of a table say what.

In: the names of a table's columns, and those that the user named. Out: the stored format
(formats.py) that the rows have, and the columns that fill its roles.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

# The usual names of a role, the likeliest first. They are compared in lower case.
NAMES = {
    "parts": ("parts",),
    "texts": ("texts",),
    "images": ("images",),
    "conversations": ("conversations",),
    "messages": ("messages",),
    "image": (
        "image", "images", "picture", "pictures", "image_path", "image_file", "file_name",
        "filename", "img", "img_path", "photo", "filepath", "file", "path",
    ),
    "before": ("before", "source_image", "source_img", "original_image", "input_image"),
    "after": ("after", "target_image", "target_img", "edited_image", "output_image"),
    "instruction": ("instruction", "edit", "prompt", "edit_prompt", "edit_instruction"),
    "question": ("question", "sentence", "query"),
    "answer": ("answer", "answers", "label", "response"),
    "caption": ("caption", "captions", "text", "description", "prompt", "name"),
    "text": ("text", "content", "document"),
}  # fmt: skip

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
    """Return the columns that fill a role by name, or else, of images, by type."""
    lower = {name.lower().strip(): name for name in reversed(list(names))}
    first = next((lower[name] for name in NAMES[role] if name in lower), None)
    if first is not None:
        return (first,)
    return tuple(typed) if role == "image" else ()


def _listed(names: Collection[str]) -> str:
    return f"the columns are {', '.join(map(repr, names)):.500}" if names else "there is no column"
