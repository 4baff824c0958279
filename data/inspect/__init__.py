"""What shards hold, in numbers and images."""
