"""temporary"""

EXAMPLES = ()


def audit() -> None:
    "Audit."
