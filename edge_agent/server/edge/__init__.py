"""Our own routes: a question and its decision in full, the queue, how provisional answers end, health and metrics."""
