"""Data: documents from a source, split, tokenised, packed into blocks, cached by content."""
