"""Updates brought to many terminals, a few at a time."""
