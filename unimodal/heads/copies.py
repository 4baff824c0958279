"""Noised copies of an image that is learned: one, or several behind one prompt.

Each copy is private: it sees the prompt and itself alone, and has masks or noise of its own. So
what is before an image is read once for all of them.
"""


def copy_keys(key: tuple[int, ...], copies: int) -> list[tuple[int, ...]]:
    """Return the keys of the generators that draw noise on an image's copies: first the image's
    own, then others.
    """
    return [key, *((*key, number) for number in range(1, copies))]


def copied(key: str, copies: int) -> str:
    """Return a head's key of the lengths of images, with the number of copies where there are
    several.
    """
    return key if copies == 1 else f"{key} in {copies} copies"
