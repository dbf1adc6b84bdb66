"""The one SQLite file: opens, checks, reads, writes and forgets."""
