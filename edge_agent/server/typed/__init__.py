"""Typed decisions: questions with named options, answered with a probability for each."""
