"""The one SQLite file: opened, kept whole, read, written, forgotten."""
