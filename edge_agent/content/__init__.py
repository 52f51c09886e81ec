"""Guide videos and pages on the terminal: kept, served to the kiosk application within their time, and counted. Guide: docs/content.md."""
