"""Measures a model and its routing; nothing that answers a question needs these rooms.

Owns no code: import the room you mean. Invariant: measuring writes no decision and asks no network.
"""
