"""Text in the EXIF part of pictures that are no PNG, where the Stable Diffusion world keeps it: the UserComment."""

import io

from PIL import Image

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
# Where ComfyUI's nodes for WebP keep their JSON, as "prompt:{...}" and "workflow:{...}".
MAKE, MODEL = 0x010F, 0x0110
UNICODE, ASCII = b"UNICODE\0", b"ASCII\0\0\0"
FORMATS = ("JPEG", "WEBP", "AVIF")
# Of a JPEG's segment, with room for what stands around the comment.
LONGEST = 65_000


def comment_exif(text: str) -> bytes | None:
    """An EXIF block with `text` as its comment; None if it is too long for one."""
    exif = Image.Exif()
    exif[EXIF_IFD] = {USER_COMMENT: UNICODE + text.encode("utf-16-be", "replace")}
    block = exif.tobytes()
    return block if len(block) <= LONGEST else None


def read_exif(data: bytes) -> dict[str, str]:
    """The texts of a JPEG, WebP or AVIF by the keys that a PNG has them under; empty for anything else."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            exif = image.getexif()
            comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT)
            named = [exif.get(tag) for tag in (MODEL, MAKE)]
    # Damaged files are reported through many types (OSError, SyntaxError, ValueError, struct.error, ...); whichever it
    # is, there is nothing to be read.
    except Exception:  # noqa: BLE001
        return {}
    texts = {}
    for value in named:
        key, colon, text = str(value).partition(":")
        if colon and key in ("prompt", "workflow"):
            texts[key] = text
    if isinstance(comment, bytes):
        texts["parameters"] = _decode(comment)
    elif isinstance(comment, str):
        texts["parameters"] = comment
    return {key: text for key, text in texts.items() if text}


def _decode(comment: bytes) -> str:
    code, text = comment[:8], comment[8:]
    if code == UNICODE:
        # Big-endian by custom; some write the other. In mostly Latin text the high bytes are the zeros.
        little = text[1::2].count(0) > text[::2].count(0)
        return text.decode("utf-16-le" if little else "utf-16-be", "replace").strip("\0\ufeff")
    if code in (ASCII, b"\0" * 8):
        comment = text
    return comment.decode("utf-8", "replace").strip("\0")
