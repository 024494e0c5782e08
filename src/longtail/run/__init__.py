"""The RUN folder: its files, their writers and readers."""
