"""A Florence-2 on disk: its files judged before they are loaded, its layouts, what a processor does, and repair."""
