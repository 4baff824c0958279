"""Predict what a run takes, before it is launched."""
