"""One table of a profile file for each family: what differs between the models that speak its language."""
