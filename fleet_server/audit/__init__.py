"""Who did what: a table that only grows, in which each row carries the hash of the one before."""
