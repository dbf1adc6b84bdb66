"""Model files: their header, profile, prompt, legal answers and names."""
