"""Content packages and the catalogue of items: made and reviewed in the console, signed into the image repository. Guide: docs/content.md."""
