"""What a model file is and says: its bounds, its profile, its prompt, its legal answers, its name."""
