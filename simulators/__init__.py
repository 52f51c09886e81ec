"""Device models that speak the wire bytes of real peripherals, virtual terminals built from them, fault scripts and a traffic model.

The models are written from manuals and captures, never from `protocols.codecs`: a codec shared by both ends would agree with itself when wrong.
"""
