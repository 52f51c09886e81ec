"""Ports to hardware. The only package of the agent that imports serial, usb, evdev or pyudev; it never looks into the bytes."""
