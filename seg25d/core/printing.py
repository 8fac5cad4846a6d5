"""Text for terminals: names of files may hold letters that command one, or that change the order of what it shows."""

import re

HARMFUL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""Control characters (ECMA-48), separators of lines, marks that turn the direction of text (unicode.org/reports/tr9,
table 4), and what stands for bytes that are no text in a file name (PEP 383)."""
_KEPT = frozenset("\n\t")
"""Of our own messages."""


def harmless(text: str) -> str:
    """The text with harmful letters as escapes of JSON, so that a terminal shows them; lines and tabs stay."""
    return HARMFUL.sub(lambda match: match[0] if match[0] in _KEPT else f"\\u{ord(match[0]):04x}", text)
