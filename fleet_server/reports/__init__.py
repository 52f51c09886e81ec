"""Excel files: lists as they are on the screen, and the month report as offices expect it."""
