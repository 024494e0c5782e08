"""One file a command: a function whose parameters are the arguments and whose docstring is the help."""
