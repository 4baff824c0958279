"""From documents on disk to packed batches, and the procedural scenes."""
