"""The thin library under the notebooks: one noun, one module."""
