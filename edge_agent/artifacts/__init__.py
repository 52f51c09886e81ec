"""What the updater has verified and the agent puts to use: profiles, catalogue, content, firmware. Guides: docs/content.md, docs/firmware.md."""
