"""The way of a question, where the other wings meet."""
