"""How fast to send, and how many at once: by the quotas declared, and by what the target turns out to take."""
