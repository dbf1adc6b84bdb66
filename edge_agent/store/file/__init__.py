"""The database as a file: opened, created, marked, repaired and replaced."""
