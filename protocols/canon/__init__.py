"""Shared words: canonical device states and fault codes."""
