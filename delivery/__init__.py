"""When and how often a mail is tried."""
