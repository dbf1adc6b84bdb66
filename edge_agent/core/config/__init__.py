"""The settings: what each may be, where it comes from, and what they allow."""
