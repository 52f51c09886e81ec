"""The registry of terminals, their keys and the newest state of their devices."""
