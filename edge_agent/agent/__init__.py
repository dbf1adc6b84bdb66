"""A question's way to its answer; here the other wings meet."""
