"""The Realtime protocol as a state machine without I/O, and what answers in a conversation."""
