"""Staff who sign in to the console."""
