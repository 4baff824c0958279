"""What shards hold, in numbers and pictures."""
