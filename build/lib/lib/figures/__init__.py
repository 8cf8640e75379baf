"""How figures look, and one function per figure."""
