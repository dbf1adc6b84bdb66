"""From the columns of a run to its figures, and from the figures to text."""
