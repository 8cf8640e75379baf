"""The library under the notebooks: the ground, and rooms in the order of the notebooks."""
