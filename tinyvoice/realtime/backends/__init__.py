"""What answers in a conversation: language models, voices, and both together."""
