"""Pictures to discrete codes and back."""
