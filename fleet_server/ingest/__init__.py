"""The only part of the server that speaks MQTT: takes messages in, commits, then answers."""
