"""The MQTT broker: a managed mosquitto, an embedded one for demonstrations, or somebody else's. None of them stores anything for us."""
