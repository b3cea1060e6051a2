"""Word error rate, test sets, speed, word times, and what to learn from the errors."""
