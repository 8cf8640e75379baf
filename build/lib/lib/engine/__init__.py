"""Each shared prefix once: scoring, sampling, serving."""
