"""Documents on disk, packed into batches, and the procedural scenes."""
