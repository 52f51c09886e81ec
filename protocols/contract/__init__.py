"""The contract between terminal and server: records, sealed batches, greeting, acknowledgement, topics, certificates.

The written specification is `docs/spec/contract.md`; every `MUST` there has a number that a test names.
"""
