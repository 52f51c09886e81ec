"""Whether terminals could be seen, as intervals with a cause, the server's own blind spans included."""
