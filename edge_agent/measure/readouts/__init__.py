"""Readouts that cost more than one reading, or that must be fitted first: measured beside the others, never used to answer."""
