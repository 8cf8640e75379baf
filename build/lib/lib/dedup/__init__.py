"""Which training questions give a test question away."""
