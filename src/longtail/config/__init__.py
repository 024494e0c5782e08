"""The resolved configuration: its schema, recipes, modes, automatic choices and validation."""
