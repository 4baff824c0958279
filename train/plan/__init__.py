"""What a run takes, predicted before it is launched."""
