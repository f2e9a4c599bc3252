"""One file per router; each registers itself."""
