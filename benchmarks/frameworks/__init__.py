"""Two networks in three frameworks: the same weights, the same groups, the same losses, and what each costs."""
