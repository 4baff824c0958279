"""Questions about images: public benchmarks by their official rules, one file a benchmark."""
