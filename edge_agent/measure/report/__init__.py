"""The report: one HTML page that says what a model, its confidence and its cloud are worth together."""
