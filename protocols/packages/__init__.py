"""Formats of what a signed target carries: sets of profiles, item catalogues, content packages. Bytes to values and back. Guide: docs/content.md."""
