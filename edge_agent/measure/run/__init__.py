"""Runs: a model and a cloud on questions with gold answers, kept so that a run can go on and be evaluated again."""
