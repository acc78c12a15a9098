"""What a file is that no picture can be read from, by its first bytes, for the words of a refusal."""

HEAD = 1024
# By what a file begins with; the first that fits counts.
BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "a PNG with a damaged beginning"),
    (b"\xff\xd8\xff", "a JPEG with a damaged beginning"),
    (b"GIF8", "a GIF with a damaged beginning"),
    (b"II*\0", "a TIFF of a kind that is not read here (as camera RAW, or colours in floating-point numbers)"),
    (b"MM\0*", "a TIFF of a kind that is not read here (as camera RAW, or colours in floating-point numbers)"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "a Photoshop document"),
    (b"gimp xcf", "a GIMP document"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"\0\0\1\0", "an icon file"),
    (b"DDS ", "a DDS texture"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"PK\3\4", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x1aE\xdf\xa3", "a video"),
    *((b"P%d" % kind, "a PNM picture") for kind in range(1, 8)),
)
# Brands of the ISO media format, which begins with the size of its first box.
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC (of a phone)"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF that the decoder of this service does not read"),
    b"crx ": "camera RAW",
}
TEXTS = ((b"<svg", "SVG"), (b"<html", "a web page"), (b"<!doctype html", "a web page"), (b'{"', "JSON"))


def what_it_is(data: bytes) -> str | None:
    """What the file is, as a noun; None if its first bytes do not tell."""
    if not data:
        return "empty"
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12], "a video")
    if data[:4] == b"RIFF":
        return "a WebP with a damaged beginning" if data[8:12] == b"WEBP" else "a sound or video"
    for beginning, kind in BEGINNINGS:
        if data.startswith(beginning):
            return kind
    head = data[:HEAD].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((kind for mark, kind in TEXTS if (mark in head if mark == b"<svg" else head.startswith(mark))), None)
