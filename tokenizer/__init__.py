"""Images to discrete codes and back."""
