"""The two update repositories (TUF): what was released, and which terminal gets what. Guide: docs/updates.md; specification: docs/spec/updates.md."""
