"""Who asks, and what they may do: strings in, answers out."""
