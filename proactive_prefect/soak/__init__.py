"""A soak: rules of all kinds run for a while in a whole installation, and what became of them is held to bounds."""
