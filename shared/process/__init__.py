"""Child processes: supervised, restarted when they end, and never orphaned."""
