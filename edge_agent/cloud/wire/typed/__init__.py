"""Typed decisions: a cloud is asked for one of several options, and answers with a probability for each."""
