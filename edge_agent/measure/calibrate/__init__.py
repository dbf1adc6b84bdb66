"""Chooses a readout and a tau from answered questions, and says what they promise. Runs no model and stores nothing."""
