"""ratoon: continued pretraining as a routine. Each room is importable on its own; nothing runs on import."""
