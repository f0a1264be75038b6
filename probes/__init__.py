"""See: what this machine, or a saved or declared one, is."""
