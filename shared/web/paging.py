"""Arguments of lists: how many, and before which."""

from flask import request

from shared.errors import InvalidValue


def number_argument(name: str, largest: int) -> int | None:
    """The whole number, from 1 on, in that argument of the request's address; None without. Raises InvalidValue."""
    text = request.args.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 1 <= int(text) <= largest):
        raise InvalidValue(f"{name} must be a whole number from 1 to {largest}, not {text!r}", field=name)
    return int(text)
