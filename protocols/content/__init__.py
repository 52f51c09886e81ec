"""Bytes that move media or carry what a person holds, shows, types or prints: for the holder of a claim, never for monitoring.

Codecs of status live in `protocols.codecs`. The two are apart so that an import contract can keep the monitoring path from ever reaching these.
"""
