"""Teach a bundle captioned images of one's own: `unimodal train teach`."""
