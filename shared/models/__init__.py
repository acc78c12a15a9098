"""Model files: what they are, which name means which file, where they are stored, and which can be downloaded."""
