"""Look into shards: numbers, a contact sheet and charts."""
