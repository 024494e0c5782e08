"""One file a command: its grammar, the arguments it takes, and what it does."""
