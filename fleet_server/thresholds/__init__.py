"""Limits that people may change: built-in defaults, what was set instead, by whom and when."""
