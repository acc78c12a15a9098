"""The words that the trained model knows, as CLIP token ids. Synonyms share a row of a small table of vectors.

All other tokens use row 0, so unknown words have no effect. Standard library only, because the services use it too.
"""

from __future__ import annotations

BEGIN, END = 49406, 49407
PROMPT_LENGTH = 77
"""Length of an encoded prompt; it starts with BEGIN and is padded with END."""

VOCABULARY: dict[str, tuple[str, ...]] = {
    "colours": (
        *("red crimson scarlet", "orange", "yellow golden gold", "green emerald", "cyan turquoise teal aqua"),
        *("blue navy azure", "purple violet", "pink", "brown chocolate", "black", "gray grey", "white"),
    ),
    "shapes": (
        *("circle disc disk ball", "square box", "triangle", "diamond", "star", "heart", "cross plus", "ring donut"),
    ),
    "backgrounds": (
        *("background backdrop", "plain solid", "striped stripes stripe", "dotted dots dot spotted polka", "gradient"),
        "checkered",
    ),
    "sizes": ("small tiny little", "medium", "large big huge giant"),
    "places": ("left", "right", "top upper", "bottom lower", "center centre middle centered"),
    "relations": ("above over", "below under", "next beside near"),
    "grammar": ("to", "of", "and", "with", "from", "on", "in at", "the", "a", "an"),
    "landscapes": (
        *("sky", "sea ocean water", "hill hills mountain", "field grass meadow", "sun", "moon"),
        *("house", "tree", "night moonlight", "day", "sunset", "landscape"),
    ),
    "things": ("shape object",),
    "punctuation": (",",),
}
"""The known words by category. Each string is a row of the table, in this order; its words are synonyms."""

_ROWS = tuple(row for rows in VOCABULARY.values() for row in rows)

TOKEN_IDS: dict[str, tuple[int, ...]] = {
    "a": (320,), "an": (550,), "the": (518,), "on": (525,), "of": (539,), "and": (537,), "with": (593,), "in": (530,),
    "at": (536,), "to": (531,), "from": (633,), "above": (4348,), "below": (3788,), "left": (1823,), "right": (1155,),
    "top": (1253,), "bottom": (5931,), "middle": (3694,), "center": (2119,), "centre": (2916,), "next": (1131,),
    "beside": (13519,), "under": (1798,), "over": (962,), "near": (2252,), "upper": (7067,), "lower": (4909,),
    "centered": (24584,), "red": (736,), "crimson": (19437,), "scarlet": (20389,), "green": (1901,),
    "emerald": (16980,), "blue": (1746,), "navy": (5598,), "azure": (18514,), "yellow": (4481,), "golden": (3878,),
    "gold": (2209,), "orange": (4287,), "purple": (5496,), "violet": (16118,), "pink": (3360,), "turquoise": (19899,),
    "teal": (22821,), "aqua": (18613,), "white": (1579,), "black": (1449,), "gray": (7048,), "grey": (5046,),
    "brown": (2866,), "chocolate": (3820,), "circle": (7117,), "disc": (10712,), "disk": (17970,), "ball": (1069,),
    "square": (3999,), "box": (2063,), "triangle": (14615,), "diamond": (6235,), "star": (1565,), "heart": (1936,),
    "cross": (3417,), "plus": (3097,), "ring": (2540,), "donut": (18471,), "background": (5994,), "backdrop": (20802,),
    "plain": (10709,), "solid": (6148,), "striped": (22192,), "stripes": (14239,), "stripe": (19368,),
    "dotted": (47950,), "dots": (19019,), "dot": (7004,), "polka": (29476,), "spotted": (4533,), "gradient": (36885,),
    "small": (2442,), "tiny": (5591,), "little": (1274,), "large": (3638,), "big": (1205,), "huge": (2699,),
    "giant": (4687,), "medium": (8675,), "sky": (2390,), "sea": (2102,), "ocean": (4918,), "water": (1573,),
    "hill": (2682,), "hills": (5289,), "mountain": (3965,), "field": (1570,), "grass": (5922,), "meadow": (17195,),
    "sun": (2176,), "moon": (3293,), "house": (1212,), "tree": (2677,), "night": (930,), "moonlight": (20001,),
    "day": (575,), "sunset": (3424,), "landscape": (5727,), "shape": (6448,), "object": (14115,), ",": (267,),
    "cyan": (1470, 550), "checkered": (1113, 26690),
}  # fmt: skip
"""Token ids of the known words by CLIP's tokenizer, which splits two of them."""

END_OF_WORD = "</w>"
"""The suffix of a token that ends a word."""
PIECES = {"cyan": ("cy", "an</w>"), "checkered": ("chec", "kered</w>")}
NAMES_NOTHING = ("grammar", "punctuation")
"""Categories whose words say nothing about the content of the picture."""

KNOWN_TOKENS = frozenset(
    token
    for kind, rows in VOCABULARY.items()
    if kind not in NAMES_NOTHING
    for word in " ".join(rows).split()
    for token in PIECES.get(word, (word + END_OF_WORD,))
    if token.removesuffix(END_OF_WORD) not in " ".join(VOCABULARY["grammar"]).split()
)
"""The tokens with a meaning for the encoder, as in CLIP's vocabulary."""

FUNCTION_WORDS = (
    "by is are was be it it's its this that that's these those there there's here i me my you your we our has have as "
    "for so very some please draw show make create generate picture image"
)
"""Unknown words that say as little about a picture as the known words of grammar."""


def row_of_token() -> dict[int, int]:
    """Return the table row of each known token id; 1 and 2 are BEGIN and END, 0 is for all other tokens.

    The first token of a split word has the word's row; a later one has its own row, unless it is a word too.
    """
    rows = {BEGIN: 1, END: 2}
    for row, words in enumerate(_ROWS, 3):
        for word in words.split():
            rows[TOKEN_IDS[word][0]] = row
    for tokens in TOKEN_IDS.values():
        for token in tokens[1:]:
            rows.setdefault(token, max(rows.values()) + 1)
    return rows


ROWS = row_of_token()
ROW_COUNT = 1 + max(ROWS.values())


def synonyms(word: str) -> list[str]:
    """Return the words in the row of `word`, including itself; empty for an unknown word."""
    return next((words.split() for words in _ROWS if word in words.split()), [])


def is_grammar(word: str) -> bool:
    """Whether a word of a prompt, in lower case, says nothing about the content of the picture."""
    word = word.replace("\u2019", "'").strip("'")
    return any(word in row.split() for row in (FUNCTION_WORDS, *VOCABULARY["grammar"]))
