"""Ways to reach a device model: an in-memory pipe, a pty, a backend for pyusb. A model never knows behind which of them it runs."""
