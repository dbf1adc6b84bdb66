"""Measures a model and its routing; nothing that answers a question needs these modules.

Owns no code: import the module you mean. Invariant: measuring writes no decision and asks no network.
"""
