"""What the numbers say: one module per question of the notebooks."""
