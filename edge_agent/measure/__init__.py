"""Measures a model and its routing. Nothing that answers a question needs these modules.

Holds no code itself; import the module you need. Invariant: measuring stores no decision and uses no network.
"""
