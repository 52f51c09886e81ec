"""The conformance suite: the agent's own discovery, drivers and fault engine watch one unit, a tap between them and the port is the witness."""
