"""Decisions on a mail, without I/O."""
