"""The toy: what each loss does to a plane of two features. ``python examples/toy --help`` runs it."""
