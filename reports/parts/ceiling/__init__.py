"""How near the entries come to the noise ceiling."""
