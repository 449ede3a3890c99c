"""Where mail lives until settled: one contract, one engine per file."""
