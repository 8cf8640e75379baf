"""What may go wrong, done on purpose: `python -m faults`."""
