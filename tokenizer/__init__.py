"""Turn images into discrete codes and back."""
