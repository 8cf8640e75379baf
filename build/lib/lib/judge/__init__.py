"""Is an answer right? Rules, a model as judge, and the client that asks it."""
