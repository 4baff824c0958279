"""Tell in words what an edit changed.

In: an `Edit`. Out: one sentence about the object that changed: 'the circle is blue now.'
"""

from .edits import Edit
from .world import SceneObject


def change_words(change: Edit) -> str:
    """Return what is different after an edit."""
    after = change.after.objects
    if change.kind == "remove":
        kept = [id(obj) for obj in after]
        gone = next(obj for obj in change.before.objects if id(obj) not in kept)
        return f"the {_name(gone)} is gone."
    if change.kind == "add":
        return f"there is {'an' if after[-1].colour[0] == 'o' else 'a'} {_name(after[-1])} now."
    moved = [new for old, new in zip(change.before.objects, after, strict=True) if old != new]
    if change.kind == "swap":
        return f"the {_name(moved[0])} and the {_name(moved[1])} changed places."
    (new,) = moved
    (old,) = [old for old, now in zip(change.before.objects, after, strict=True) if old != now]
    if change.kind == "recolour":
        return f"the {_name(old)} is {new.colour} now."
    if change.kind == "resize":
        return f"the {_name(new)} is {'bigger' if new.width > old.width else 'smaller'} now."
    return f"the {_name(new)} moved."


def _name(obj: SceneObject) -> str:
    return f"{obj.colour} {obj.shape}"
