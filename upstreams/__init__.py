"""Where mail goes: one file per kind. `KINDS` is the one list of brands."""
