"""The vocabulary, the pure rules and the settings; imports nothing of ours."""
