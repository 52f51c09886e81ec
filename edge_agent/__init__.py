"""The agent on a kiosk, call-pad control box, booth, desk or van: devices in, signed records out."""
