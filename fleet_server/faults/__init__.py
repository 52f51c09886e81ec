"""Fault episodes and what people did about them."""
