"""What is asked: the facts, the benchmarks, the splits."""
