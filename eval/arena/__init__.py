"""Two models' drawings side by side, and people who say which is better."""
