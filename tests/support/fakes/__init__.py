"""Peers of the server on loopback sockets that enforce what their platforms document: group robots, a webhook receiver, a mail server."""
