"""Ed25519's curve in plain integers, slow and independent of any library: finds the keys that must be refused.

RFC 8032, section 5.1.4 "Point Addition" (affine here) and appendix A "Ed25519/Ed448 Python Library".
"""

from __future__ import annotations

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def add(one: Point, other: Point) -> Point:
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P
    return x, y


def multiply(scalar: int, point: Point) -> Point:
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def point_of(y: int) -> Point | None:
    """Return a point with this y, None when there is none."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if x * x % P == square else None


def small_order_points() -> set[Point]:
    """Return all points whose order divides 8: the group's order is 8 * ORDER."""
    found: set[Point] = set()
    y = 2
    while len(found) < 8:
        point = point_of(y)
        if point is not None:
            torsion = multiply(ORDER, point)
            found |= {multiply(i, torsion) for i in range(8)}
        y += 1
    return found


def all_encodings(y: int) -> list[bytes]:
    """Return every 32 bytes that a lax decoder reads as this y: canonical and not, with both sign bits."""
    values = [value for value in (y, y + P) if value < 2**255]
    return [(value | sign << 255).to_bytes(32, "little") for value in values for sign in (0, 1)]
