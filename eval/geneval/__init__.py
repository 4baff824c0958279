"""GenEval in three layers: images are drawn, objects are detected, detections are scored."""
