"""The process that holds the order key: it signs what was asked for and approved, and does what rollouts and repositories need done in time."""
