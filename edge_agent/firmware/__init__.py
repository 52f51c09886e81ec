"""Writing firmware into attached devices by the method that their profile names. Guide: docs/firmware.md; specification: U-301 to U-308."""
