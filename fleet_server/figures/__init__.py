"""Figures: each a numerator, a denominator, a period and a population rule, with the records that make it."""
