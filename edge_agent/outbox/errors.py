"""What can go wrong between a fact and the disk."""


class OutboxError(Exception):
    """The spool cannot be used as it is; the message says what to do."""


class CaptureRefused(OutboxError):
    """The record does not fit its schema or is too large; sending it again does not help."""


class OutboxFull(OutboxError):
    """No space on the disk even after purging; the caller may try again later."""

    retryable = True
