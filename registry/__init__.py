"""The HTTP face of storage, and the one place where all parts meet."""
