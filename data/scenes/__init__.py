"""The procedural world: scenes, their words, and the reader that judges images of them."""
