"""Acts: one repeatable step each, handed values."""
