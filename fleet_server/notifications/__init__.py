"""Tells people elsewhere what needs them: digests of faults to webhooks, mail and group robots.

Who decides (`planner`) and who sends (`courier`) are apart; between them are rows. It reads what ingest wrote and changes no fact.
"""
