"""Owner mode: the kiosk application uses devices through the agent, one module for each interface of XFS4IoT (CWA 17852).

The monitoring path (`edge_agent.devices`) never imports this package: an import contract holds it to that.
"""
