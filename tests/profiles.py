"""Colour profiles, generated here: the licences of real ones do not allow distribution."""

import struct


def _tag(kind: bytes, content: bytes) -> bytes:
    return kind + bytes(4) + content


def _curve(gamma: float) -> bytes:
    return _tag(b"curv", struct.pack(">IH", 1, round(gamma * 256)))


def _xyz(x: float, y: float, z: float) -> bytes:
    return _tag(b"XYZ ", struct.pack(">3i", *(round(value * 65536) for value in (x, y, z))))


def _text(text: bytes) -> bytes:
    return _tag(b"desc", struct.pack(">I", len(text) + 1) + text + bytes(1 + 4 + 4 + 2 + 1 + 67))


def _profile(space: bytes, pcs: bytes, device: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text(b"test"), b"cprt": _tag(b"text", b"none\0"), b"wtpt": _xyz(0.9642, 1, 0.8249), **tags}
    table, content = b"", b""
    offset = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(content), len(data))
        content += data
    size = offset + len(content)
    white = struct.pack(">3i", 63190, 65536, 54061)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, device, space, pcs)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white + bytes(48)
    return head[:128] + struct.pack(">I", len(tags)) + table + content


def grey(gamma: float) -> bytes:
    """Return a grey profile with this gamma."""
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": _curve(gamma)})


def swapped_rgb() -> bytes:
    """Return an RGB profile with the primaries of sRGB, but red and blue swapped, so that its effect is obvious."""
    red, green, blue = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
    primaries = {b"rXYZ": _xyz(*blue), b"gXYZ": _xyz(*green), b"bXYZ": _xyz(*red)}
    return _profile(b"RGB ", b"XYZ ", b"mntr", {**primaries, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(2.2))})


def grey_ink() -> bytes:
    """Return a CMYK profile in which cyan alone is middle grey, and cyan with any other ink is black."""
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    straight = bytes(range(256))
    # Two grid points for each ink, the last ink changing fastest; Lab with 8 bits.
    grid = bytes([255, 128, 128]) + bytes([0, 128, 128]) * 7 + bytes([128, 128, 128]) + bytes([0, 128, 128]) * 7
    table = struct.pack(">4B", 4, 3, 2, 0) + identity + straight * 4 + grid + straight * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": _tag(b"mft1", table)})
