"""Tables of all kinds -> shards."""
