"""What is wrong in a text that should be JSON: where, what stands there, and what would be right. Pure."""

from __future__ import annotations

import json
import re
import unicodedata

AROUND = 20
QUOTES = "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2032\u2033"
WORDS = {"True": "true", "False": "false", "None": "null", "undefined": "null", "nan": "null", "NULL": "null"}
WORD = re.compile(r"[^\W\d]\w{0,50}")
# What other languages take for a number; JSON's have no such signs and no zeros in front.
NUMBER = re.compile(r"[+-]?[\d.][\w.]*")
SHELL_HINT = (
    "cmd and PowerShell take quotes away: save the JSON as body.json and send -d @body.json, or in cmd write "
    r'-d "{\"prompt\": \"a lighthouse\"}"'
)


class InvalidJson(ValueError):
    """A text is no JSON. `str` ends a sentence that begins with the text's name; `hint` is what would be right."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(f"is not valid JSON: {what}")
        self.hint = hint


def begins_as_json(body: bytes) -> bool:
    """Whether a body is meant as JSON, in whatever encoding, even if the shell has spoilt its quotes."""
    start = body[:100].decode(json.detect_encoding(body[:4]), "replace").lstrip("\ufeff\u200b\xa0 \t\r\n")
    return start.startswith(("{", "[", '"', "'{", "'[", "\u2018{", "\u201c{"))


def explain(error: ValueError) -> InvalidJson:
    """What `json.loads` raised, in words that help."""
    if isinstance(error, UnicodeDecodeError):
        return _undecoded(error)
    if not isinstance(error, json.JSONDecodeError):
        # Such as a number of more digits than Python reads.
        return InvalidJson("it has a number that is too long")
    whole = error.doc
    if not whole.strip():
        return InvalidJson("it is empty")
    what, hint = _mistake(whole, error.pos, error.msg)
    return InvalidJson(f"{what} (line {error.lineno}, column {error.colno}, at {_around(whole, error.pos)})", hint)


def _undecoded(error: UnicodeDecodeError) -> InvalidJson:
    byte = error.object[error.start]
    if error.object[:1] in (b"\x89", b"\xff", b"R", b"G") and b"{" not in error.object[:1000]:
        return InvalidJson("it looks like a file", "send pictures as files of a form, or as base64 in a JSON object")
    hint = "save it as UTF-8; Windows writes other encodings unless told"
    return InvalidJson(f"byte {error.start} (0x{byte:02x}) is no {error.encoding.upper()}", hint)


def _mistake(text: str, at: int, said: str) -> tuple[str, str | None]:  # noqa: PLR0911 - one for each mistake
    """What is wrong at that position, where the parser said so, and a hint."""
    here, before = text[at : at + 1], text[max(0, at - 100) : at].rstrip()[-1:]
    start = text.lstrip()[:1]
    if start == "'" and at <= len(text) - len(text.lstrip()):
        return "it begins with a single quote", SHELL_HINT
    if here and (spoilt := _character_mistake(text, at, said)) is not None:
        return spoilt
    if (here and here in "]}" and before == ",") or "trailing comma" in said:
        return "there is a comma too many", "leave out the comma before } or ]"
    if not here:
        return (
            "it ends too early",
            "it was cut off, or a bracket or quote is missing; in cmd and PowerShell: -d @body.json",
        )
    if said.startswith("Invalid control"):
        return "a text has a line break or tab as it is", r"write \n or \t"
    if (number := _number_mistake(text, at)) is not None:
        return number
    if said.startswith("Invalid \\"):
        return "a text has a backslash that stands for nothing", r"write \\ for a backslash, or / in paths"
    if said.startswith("Unterminated"):
        return "a text has no quote at its end", 'end it with ", and write \\" inside'
    if said.startswith("Extra data"):
        return ("it goes on after its end", "send one JSON object") if at else ("it is no JSON", None)
    if here in "/#":
        return "JSON has no comments", "leave them out"
    return _misplaced(text, at, said)


def _character_mistake(text: str, at: int, said: str) -> tuple[str, str | None] | None:
    """The same, for a character that looks like one of JSON's, or like none; None if it is another."""
    here = text[at]
    if here in QUOTES:
        return f"{here} is a quote for print", 'write straight double quotes: "'
    if here in "'`":
        which = "single ones" if here == "'" else "backticks"
        python = "Python's dicts go through json.dumps, or json=... of requests; " if here == "'" else ""
        return f"JSON has double quotes, not {which}", f'write "..." instead of {here}...{here}; {python}{SHELL_HINT}'
    if text[at : at + 2] == '\\"':
        return "its quotes have backslashes", "leave the backslashes out, or send the body from a file: -d @body.json"
    is_control = unicodedata.category(here) in ("Cf", "Cc") and not here.isspace()
    return _unseen(here, said) if is_control or here in "\xa0\u3000" else None


def _unseen(character: str, said: str) -> tuple[str, str | None]:
    """The same, for a character that nobody sees."""
    name = f"U+{ord(character):04X}"
    if said.startswith("Invalid control"):
        return f"a text has the control character {name} as it is", f"write \\u{ord(character):04x}, or leave it out"
    return f"there is a character that cannot be seen ({name})", "it may have come with a copied text: delete it"


def _number_mistake(text: str, at: int) -> tuple[str, str | None] | None:
    """The same, for a number as other languages write it; None if there is none."""
    if re.search(r"\d,$", text[max(0, at - 2) : at]) and re.match(r"\d+\s*[,}\]]", text[at : at + 20]):
        return "a number has a comma", "write a decimal point: 7.5"
    begin = at
    while begin > max(0, at - 30) and (text[begin - 1].isalnum() or text[begin - 1] in "_.+-"):
        begin -= 1
    number = NUMBER.match(text, begin)
    if number is None or number.end() < at or not any(each.isdigit() for each in number[0]):
        return None
    hint = "write it with decimal digits, such as 7, -1 or 0.5, without zeros or + in front"
    return f"{number[0][:30]} is no number of JSON", hint


def _misplaced(text: str, at: int, said: str) -> tuple[str, str | None]:
    """The same, for something that stands where something else is due."""
    word = WORD.match(text, at)
    if said.startswith("Expecting property name"):
        return ("the name has no quotes", SHELL_HINT) if word else ("a name in double quotes is due", None)
    if said.startswith("Expecting value"):
        if word and word[0] in WORDS:
            return f"{word[0]} is no word of JSON", f"write {WORDS[word[0]]}"
        if word and at == len(text) - len(text.lstrip()):
            form = (
                "a form needs no content-type header: leave it to the client"
                if "=" in text[at : at + 200]
                else SHELL_HINT
            )
            return "it begins with a word", form
        return ("the text has no quotes", SHELL_HINT) if word else ("a value is due", None)
    if said.startswith("Expecting ':'"):
        return "a colon is due", None
    return "a comma is due, or a quote inside a text has no backslash", 'write \\" inside a text'


def _around(text: str, at: int) -> str:
    """The characters around a position, on one line."""
    piece = text[max(0, at - AROUND) : at + AROUND]
    cut = "..." if at > AROUND else "", "..." if at + AROUND < len(text) else ""
    shown = "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in piece)
    return f"{cut[0]}{shown}{cut[1]}"
