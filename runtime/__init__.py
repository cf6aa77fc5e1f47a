"""From a reference to generated tokens."""
