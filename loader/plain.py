"""What others wrote, made harmless to show: an API's message must not move the cursor, nor hide what it stands by."""


def plain(text: str) -> str:
    """One line without control characters, of terminals (ESC, CSI) and of Unicode (right to left, of no width)."""
    return " ".join(
        "".join(ch if ch.isprintable() else " " if ch.isspace() else "\N{REPLACEMENT CHARACTER}" for ch in text).split()
    )
