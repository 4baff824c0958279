"""Learning from rewards: the model answers, a function says how well, and it learns from that."""
