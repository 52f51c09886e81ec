"""The fleet's own trust: one Ed25519 root for record keys and server keys, one X.509 authority for TLS, and the certificates they issue."""
