"""One driver per device family: a port and a profile in, canonical observations out. Drivers ask how a device is, never what it holds."""
