"""What the screens show of runs, comparisons and sweeps: read piece by piece, shared by all visitors, handed out as
snapshots that never change."""
