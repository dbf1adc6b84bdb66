"""The pages: the visitor's at `/`, the operator's at `/operator`, and the files that they are made of."""
