"""How a policy is trained: GRPO and the baselines."""
