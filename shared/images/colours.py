"""Finds the colour space of a picture and converts it to sRGB.

A file declares its colour space with an ICC profile, the chunks cICP, sRGB, gAMA and cHRM of a PNG, the nclx box of an
AVIF, an EXIF tag, or the primaries of a TIFF. All but the first become an ICC profile here, so that there is one way of
conversion. If the colours are unclear, a warning says so.
"""

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageCms

Matrix = tuple[tuple[float, float, float], ...]
# The picture modes that a profile of each ICC colour space suits.
SPACES = {"RGB ": ("RGB", "L"), "GRAY": ("L",), "CMYK": ("CMYK",), "Lab ": ("LAB",)}
D65, DCI_WHITE = (0.3127, 0.3290), (0.314, 0.351)
BT709, BT2020 = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060), (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
BT601_625, BT601_525 = (0.640, 0.330, 0.290, 0.600, 0.150, 0.060), (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
P3, ADOBE = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060), (0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
# Code points of ITU-T H.273. 2 means "unspecified". On screens, the curve of BT.709 is shown as sRGB.
PRIMARIES = {1: (D65, BT709), 2: (D65, BT709), 5: (D65, BT601_625), 6: (D65, BT601_525), 7: (D65, BT601_525)}
PRIMARIES |= {9: (D65, BT2020), 11: (DCI_WHITE, P3), 12: (D65, P3)}
SRGB_CURVES, GAMMAS, HDR_CURVES = (1, 2, 6, 13, 14, 15), {4: 2.2, 5: 2.8, 8: 1.0}, {16: "PQ", 18: "HLG"}
ADOBE_GAMMA = 563 / 256
# Tolerances for values that mean sRGB: many programs write 1/0.45455 for its curve.
SAME_COORDINATE, SAME_GAMMA = 0.003, 0.06
SMALLEST_GAMMA, LARGEST_GAMMA = 0.2, 10.0
# Tags of EXIF and TIFF.
EXIF_IFD, INTEROPERABILITY_IFD, COLOUR_SPACE, INDEX = 0x8769, 0xA005, 0xA001, 1
ADOBE_RGB, ADOBE_INDEX = 2, "R03"
TIFF_WHITE, TIFF_PRIMARIES = 318, 319
# From XYZ to cone responses (Bradford), for the chromatic adaptation to D50, the white of ICC profiles.
BRADFORD: Matrix = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
D50 = (0.9642, 1.0, 0.8249)
CURVE_POINTS = 1024
# Bytes at the start of an AVIF that contain its properties.
AVIF_HEAD = 65_536
# Chunks of a PNG that are searched: cICP is near the start.
MOST_CHUNKS = 1000


@dataclass(frozen=True)
class ColourSpace:
    """`white` (x, y) and `primaries` (x, y of red, green, blue); `gamma` of the curve, or None for that of sRGB."""

    white: tuple[float, float] = D65
    primaries: tuple[float, ...] = BT709
    gamma: float | None = None

    @property
    def is_srgb(self) -> bool:
        """Whether it is sRGB within the tolerances of files."""
        coordinates, srgb = (*self.white, *self.primaries), (*D65, *BT709)
        is_near = all(abs(one - other) <= SAME_COORDINATE for one, other in zip(coordinates, srgb, strict=True))
        return is_near and (self.gamma is None or abs(self.gamma - 2.2) <= SAME_GAMMA)


class _UnclearColours(Exception):
    """The colour space is unknown. The argument says why, in words that follow the picture's name: "is HDR ..."."""


def srgb_conversion(
    image: Image.Image, data: bytes, base: str
) -> tuple[Callable[[Image.Image], Image.Image] | None, str | None]:
    """Return a function that converts bands of mode `base` to sRGB, and a colour problem if the colours are unclear.

    The function is None if no conversion is needed. `image` is the whole picture, `data` its file.
    """
    try:
        if base == "LAB":
            return _transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), base), None
        space = _read_code_points(image, data)
        embedded = image.info.get("icc_profile")
        if space is None and embedded:
            return _transform(_read_profile(embedded, base), base), None
        space = space or _read_tags(image)
        if base == "CMYK":
            return None, "is CMYK without a colour profile: its colours are estimated"
        if space is None or space.is_srgb:
            return None, None
        profile = write_profile(space, grey=base == "L")
        return _transform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), base), None
    except _UnclearColours as problem:
        return None, str(problem)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ZeroDivisionError):
        return None, "has an unusable colour profile: its colours are estimated"


def _read_profile(embedded: bytes, base: str) -> ImageCms.ImageCmsProfile:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
    if base not in SPACES.get(profile.profile.xcolor_space, ()):
        kind = profile.profile.xcolor_space.strip()
        raise _UnclearColours(f"has a colour profile of the wrong kind ({kind}): its colours are estimated")
    return profile


def _transform(profile: ImageCms.ImageCmsProfile, base: str) -> Callable[[Image.Image], Image.Image]:
    # Some programs add an RGB profile to grey pictures, too.
    mode = "RGB" if profile.profile.xcolor_space == "RGB " else base
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")

    def apply(band: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(band.convert(mode) if band.mode != mode else band, transform)
        return band if converted is None else converted

    return apply


def _read_code_points(image: Image.Image, data: bytes) -> ColourSpace | None:
    """Read the H.273 code points of a PNG, where they override a profile, or of an AVIF. Raises _UnclearColours."""
    if image.format == "PNG":
        codes = _cicp_chunk(data)
    elif image.format == "AVIF" and not image.info.get("icc_profile"):
        codes = _nclx_box(data)
    else:
        return None
    if codes is None:
        return None
    primaries, curve = codes
    if curve in HDR_CURVES:
        raise _UnclearColours(
            f"is HDR ({HDR_CURVES[curve]}), which is not supported: save it as sRGB for exact colours"
        )
    if primaries not in PRIMARIES or (curve not in GAMMAS and curve not in SRGB_CURVES):
        raise _UnclearColours(f"has an unsupported colour space ({primaries}/{curve}): its colours are estimated")
    return ColourSpace(*PRIMARIES[primaries], GAMMAS.get(curve))


def _cicp_chunk(data: bytes) -> tuple[int, int] | None:
    at = 8
    for _ in range(MOST_CHUNKS):
        if at + 12 > len(data):
            return None
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"cICP" and length == 4:
            return data[at + 8], data[at + 9]
        if kind == b"IDAT":
            return None
        at += 12 + length
    return None


def _nclx_box(data: bytes) -> tuple[int, int] | None:
    at = data.find(b"colrnclx", 0, AVIF_HEAD)
    if at < 0 or len(data) < at + 12:
        return None
    primaries, curve = struct.unpack_from(">HH", data, at + 8)
    return primaries, curve


def _read_tags(image: Image.Image) -> ColourSpace | None:
    """Read the colour space from chunks of a PNG, tags of a TIFF, or EXIF."""
    info = image.info
    if image.format == "PNG":
        gamma, points = info.get("gamma"), info.get("chromaticity")
        if "srgb" in info or (gamma is None and points is None):
            return _exif_space(image)
        exponent = 1 / gamma if gamma else 2.2
        if not SMALLEST_GAMMA <= exponent <= LARGEST_GAMMA:
            raise ValueError("implausible gamma")
        curve = None if abs(exponent - 2.2) <= SAME_GAMMA else exponent
        return ColourSpace(gamma=curve) if points is None else ColourSpace(tuple(points[:2]), tuple(points[2:]), curve)
    tags = getattr(image, "tag_v2", {})
    if TIFF_PRIMARIES in tags:
        points = tuple(float(value) for value in tags[TIFF_PRIMARIES])
        white = tuple(float(value) for value in tags.get(TIFF_WHITE, D65))
        if len(points) != 6 or len(white) != 2:
            raise ValueError("wrong number of primaries")
        return ColourSpace((white[0], white[1]), points, 2.2)
    return _exif_space(image)


def _exif_space(image: Image.Image) -> ColourSpace | None:
    exif = image.getexif()
    space = exif.get_ifd(EXIF_IFD).get(COLOUR_SPACE)
    index = str(exif.get_ifd(INTEROPERABILITY_IFD).get(INDEX, "")).strip("\0 ")
    # Cameras write "uncalibrated" and the index of Adobe RGB; other programs an unofficial number for it.
    if space == ADOBE_RGB or (space not in (None, 1) and index == ADOBE_INDEX):
        return ColourSpace(primaries=ADOBE, gamma=ADOBE_GAMMA)
    return None


def write_profile(space: ColourSpace, *, grey: bool) -> bytes:
    """Build an ICC profile (version 2) of a colour space, or of its curve only. Raises ValueError if impossible."""
    curve = _curve_tag(space.gamma)
    if grey:
        return _profile(b"GRAY", {b"kTRC": curve})
    columns = zip(*_to_d50(space), strict=True)
    tags = {name: _xyz_tag(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    return _profile(b"RGB ", {**tags, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


def _to_d50(space: ColourSpace) -> Matrix:
    """Return the matrix from linear RGB to XYZ, adapted to D50."""
    red, green, blue = (space.primaries[at : at + 2] for at in (0, 2, 4))
    columns = [_from_xy(*point) for point in (red, green, blue)]
    primaries = tuple(zip(*columns, strict=True))
    white = _from_xy(*space.white)
    scale = _times(_inverse(primaries), white)
    to_xyz = tuple(tuple(value * factor for value, factor in zip(row, scale, strict=True)) for row in primaries)
    cones = [target / source for target, source in zip(_times(BRADFORD, D50), _times(BRADFORD, white), strict=True)]
    adapted = tuple(tuple(value * factor for value in row) for row, factor in zip(BRADFORD, cones, strict=True))
    return _product(_product(_inverse(BRADFORD), adapted), to_xyz)


def _from_xy(x: float, y: float) -> tuple[float, float, float]:
    if y <= 0:
        raise ValueError("not a colour")
    return x / y, 1.0, (1 - x - y) / y


def _times(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def _product(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> Matrix:
    columns = list(zip(*other, strict=True))
    return tuple(tuple(_times(columns, row)) for row in one)  # type: ignore[misc]


def _inverse(matrix: Sequence[Sequence[float]]) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    cofactors = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    determinant = a * cofactors[0][0] + b * cofactors[1][0] + c * cofactors[2][0]
    if abs(determinant) < 1e-6:
        raise ValueError("the primaries are on one line")
    return tuple(tuple(value / determinant for value in row) for row in cofactors)  # type: ignore[misc]


def _curve_tag(gamma: float | None) -> bytes:
    if gamma is not None:
        return _tag(b"curv", struct.pack(">IH", 1, round(gamma * 256)))
    levels = [_srgb_to_linear(point / (CURVE_POINTS - 1)) for point in range(CURVE_POINTS)]
    values = (round(level * 65535) for level in levels)
    return _tag(b"curv", struct.pack(f">I{CURVE_POINTS}H", CURVE_POINTS, *values))


def _srgb_to_linear(level: float) -> float:
    return level / 12.92 if level <= 0.04045 else float(((level + 0.055) / 1.055) ** 2.4)


def _tag(kind: bytes, content: bytes) -> bytes:
    return kind + bytes(4) + content


def _xyz_tag(x: float, y: float, z: float) -> bytes:
    if not all(abs(value) < 100 for value in (x, y, z)):
        raise ValueError("not a colour")
    return _tag(b"XYZ ", struct.pack(">3i", *(round(value * 65536) for value in (x, y, z))))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    name = b"described by its picture"
    text = _tag(b"desc", struct.pack(">I", len(name) + 1) + name + bytes(1 + 4 + 4 + 2 + 1 + 67))
    tags = {b"desc": text, b"cprt": _tag(b"text", b"none\0"), b"wtpt": _xyz_tag(*D50), **tags}
    table, content = b"", b""
    offset = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        table += tag + struct.pack(">II", offset + len(content), len(data))
        content += padded
    head = struct.pack(">I4sI4s4s4s", offset + len(content), b"none", 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(value * 65536) for value in D50)) + bytes(48)
    return head[:128] + struct.pack(">I", len(tags)) + table + content
