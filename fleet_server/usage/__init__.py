"""Service sessions, ratings, queue events, counters and the days figures are computed for."""
