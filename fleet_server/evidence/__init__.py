"""Signed envelopes as they came, the streams they form, and what could not be used."""
