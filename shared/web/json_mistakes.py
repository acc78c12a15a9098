"""Explains mistakes in JSON: what is wrong, where, and what to write instead. Pure."""

from __future__ import annotations

import json
import re
import unicodedata

# Characters on each side of a mistake that an error quotes.
CONTEXT = 20
QUOTES = "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2032\u2033"
WORDS = {"True": "true", "False": "false", "None": "null", "undefined": "null", "nan": "null", "NULL": "null"}
WORD = re.compile(r"[^\W\d]\w{0,50}")
# Matches numbers of other languages: JSON has no plus sign and no leading zeros.
NUMBER = re.compile(r"[+-]?[\d.][\w.]*")
SHELL_HINT = (
    "cmd and PowerShell remove quotes: save the JSON as body.json and send -d @body.json, or in cmd write "
    r'-d "{\"prompt\": \"a lighthouse\"}"'
)


class InvalidJson(ValueError):
    """Invalid JSON. The message continues a sentence that begins with the name of the text."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(f"is not valid JSON: {what}")
        self.hint = hint


def begins_as_json(body: bytes) -> bool:
    """Whether a body looks like JSON, in any encoding, even if a shell has changed its quotes."""
    start = body[:100].decode(json.detect_encoding(body[:4]), "replace").lstrip("\ufeff\u200b\xa0 \t\r\n")
    return start.startswith(("{", "[", '"', "'{", "'[", "\u2018{", "\u201c{"))


def explain(error: ValueError) -> InvalidJson:
    """Convert an error of `json.loads` to one that says what to change."""
    if isinstance(error, UnicodeDecodeError):
        return _encoding_mistake(error)
    if not isinstance(error, json.JSONDecodeError):
        return InvalidJson("it has a number with too many digits")
    whole = error.doc
    if not whole.strip():
        return InvalidJson("it is empty")
    what, hint = _mistake(whole, error.pos, error.msg)
    return InvalidJson(
        f"{what} (line {error.lineno}, column {error.colno}, at {_quote_context(whole, error.pos)})", hint
    )


def _encoding_mistake(error: UnicodeDecodeError) -> InvalidJson:
    byte = error.object[error.start]
    if error.object[:1] in (b"\x89", b"\xff", b"R", b"G") and b"{" not in error.object[:1000]:
        return InvalidJson(
            "it looks like a binary file", "send pictures as files of a form, or as base64 in a JSON object"
        )
    hint = "save it as UTF-8; by default, Windows writes other encodings"
    return InvalidJson(f"byte {error.start} (0x{byte:02x}) is not {error.encoding.upper()}", hint)


def _mistake(text: str, at: int, reason: str) -> tuple[str, str | None]:  # noqa: PLR0911 - one for each mistake
    """Return the mistake at a position, and a hint; `reason` is the message of the parser."""
    character, before = text[at : at + 1], text[max(0, at - 100) : at].rstrip()[-1:]
    start = text.lstrip()[:1]
    if start == "'" and at <= len(text) - len(text.lstrip()):
        return "it begins with a single quote", SHELL_HINT
    if character and (mistake := _character_mistake(text, at, reason)) is not None:
        return mistake
    if (character and character in "]}" and before == ",") or "trailing comma" in reason:
        return "it has a trailing comma", "leave out the comma before } or ]"
    if not character:
        return (
            "it ends too early",
            "add the missing bracket or quote, or send the rest; in cmd and PowerShell, use -d @body.json",
        )
    if reason.startswith("Invalid control"):
        return "a string has a raw line break or tab", r"write \n or \t"
    if (number := _number_mistake(text, at)) is not None:
        return number
    if reason.startswith("Invalid \\"):
        return "a string has an invalid escape", r"write \\ for a backslash, or / in paths"
    if reason.startswith("Unterminated"):
        return "a string has no closing quote", 'end it with ", and write \\" inside'
    if reason.startswith("Extra data"):
        return ("it continues after its end", "send one JSON object") if at else ("it is not JSON", None)
    if character in "/#":
        return "JSON has no comments", "remove the comments"
    return _unexpected_token(text, at, reason)


def _character_mistake(text: str, at: int, reason: str) -> tuple[str, str | None] | None:
    """Like `_mistake`, for a character that resembles one of JSON's, or is invisible; None for any other."""
    character = text[at]
    if character in QUOTES:
        return f"{character} is a typographic quote", 'write straight double quotes: "'
    if character in "'`":
        which = "single quotes" if character == "'" else "backticks"
        python = "in Python, use json.dumps or json=... of requests; " if character == "'" else ""
        return (
            f"JSON has double quotes, not {which}",
            f'write "..." instead of {character}...{character}; {python}{SHELL_HINT}',
        )
    if text[at : at + 2] == '\\"':
        return "its quotes have backslashes", "remove the backslashes, or send the body from a file: -d @body.json"
    is_control = unicodedata.category(character) in ("Cf", "Cc") and not character.isspace()
    return _invisible_character(character, reason) if is_control or character in "\xa0\u3000" else None


def _invisible_character(character: str, reason: str) -> tuple[str, str | None]:
    """Like `_mistake`, for an invisible character."""
    name = f"U+{ord(character):04X}"
    if reason.startswith("Invalid control"):
        return f"a string has the raw control character {name}", f"write \\u{ord(character):04x}, or leave it out"
    return f"it has an invisible character ({name})", "delete it; copied text often has such characters"


def _number_mistake(text: str, at: int) -> tuple[str, str | None] | None:
    """Like `_mistake`, for a number in the notation of another language; None if there is none."""
    if re.search(r"\d,$", text[max(0, at - 2) : at]) and re.match(r"\d+\s*[,}\]]", text[at : at + 20]):
        return "a number has a decimal comma", "write a decimal point: 7.5"
    begin = at
    while begin > max(0, at - 30) and (text[begin - 1].isalnum() or text[begin - 1] in "_.+-"):
        begin -= 1
    number = NUMBER.match(text, begin)
    if number is None or number.end() < at or not any(digit.isdigit() for digit in number[0]):
        return None
    hint = "write it with decimal digits, such as 7, -1 or 0.5, without leading zeros or +"
    return f"{number[0][:30]} is not a JSON number", hint


def _unexpected_token(text: str, at: int, reason: str) -> tuple[str, str | None]:
    """Like `_mistake`, for a token where another is expected."""
    word = WORD.match(text, at)
    if reason.startswith("Expecting property name"):
        return ("a name has no quotes", SHELL_HINT) if word else ("a name in double quotes is expected", None)
    if reason.startswith("Expecting value"):
        if word and word[0] in WORDS:
            return f"{word[0]} is not a JSON word", f"write {WORDS[word[0]]}"
        if word and at == len(text) - len(text.lstrip()):
            form = (
                "to send a form, leave the content-type header to the client"
                if "=" in text[at : at + 200]
                else SHELL_HINT
            )
            return "it begins with a word", form
        return ("a string has no quotes", SHELL_HINT) if word else ("a value is expected", None)
    if reason.startswith("Expecting ':'"):
        return "a colon is expected", None
    return "a comma is expected, or a quote inside a string has no backslash", 'write \\" inside a string'


def _quote_context(text: str, at: int) -> str:
    """Quote the characters around a position, on one line."""
    piece = text[max(0, at - CONTEXT) : at + CONTEXT]
    cut = "..." if at > CONTEXT else "", "..." if at + CONTEXT < len(text) else ""
    quoted = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in piece)
    return f"{cut[0]}{quoted}{cut[1]}"
