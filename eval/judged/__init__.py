"""Images judged by answers to questions about them: GenEval 2, DPG-Bench, TIFA, T2I-CompBench."""
