"""The whole job with a real model, for people and for CI."""
