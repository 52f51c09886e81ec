"""Screens on walls: what they show, and the tokens that let them."""
