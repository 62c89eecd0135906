"""The loader, crashed at every step that a disk has to remember, and what must be true afterwards."""
