"""What the figures of the report are drawn with."""
