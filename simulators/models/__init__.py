"""Device models: bytes in, bytes out at times. No clock, no socket, no thread inside; every call is given `now` in monotonic seconds."""
