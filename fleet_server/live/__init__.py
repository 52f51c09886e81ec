"""Hints for open pages: what changed, in commit order on this database."""
