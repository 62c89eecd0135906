"""The nightly refresh: which users changed since the target last acknowledged them, and who vanished."""
