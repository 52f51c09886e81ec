"""What operators want of this terminal: orders, done once and told step by step, and the desired state, which holds until the next."""
