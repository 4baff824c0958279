"""Benchmarks of edits of images: drawn, laid out and read back, and judged on scenes."""
