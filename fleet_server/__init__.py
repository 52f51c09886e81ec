"""The server: broker, ingest, registry, evidence, console."""
