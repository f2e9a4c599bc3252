"""What a routed batch leaves behind: the record, its sums over an evaluation, and snapshots of it."""
