"""What the Makefile calls: prepare a machine, check the project. Standard library only, since it runs before anything is installed."""
