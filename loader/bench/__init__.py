"""`loader bench`: how fast the target takes users, and with which limits."""
