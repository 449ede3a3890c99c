"""Command line and wiring; nobody imports it."""
