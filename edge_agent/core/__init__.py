"""The vocabulary, the pure rules and the settings; imports no other wing."""
