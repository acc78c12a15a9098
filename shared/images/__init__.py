"""Pictures and masks: decoding, colours, size and shape, encoding, and text in picture files."""
