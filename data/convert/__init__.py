"""Turn tables of all kinds into shards."""
