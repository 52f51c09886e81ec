"""The updater: a process and a user of its own. Decides what runs on the terminal; believes signatures, and nothing that the agent says."""
