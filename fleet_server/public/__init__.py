"""What citizens may see: where the nearest working terminal is, what it can do, when it is open. Read-only, no accounts, a process of its own."""
