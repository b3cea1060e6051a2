"""The command line: one module a command, found and imported when it is called."""
