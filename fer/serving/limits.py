"""The limits on the requests of one client, and of all together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on size, number and time.

    Args:
        body: bytes of a request; a telephone's largest JPEG has about 25 million.
        bodies: bytes of all requests in memory together.
        pixels: of a picture, read from its header before it is decoded; a telephone's 50 megapixels fit.
        slots: pictures that wait or are predicted at a time.
        maps: faces of a picture with a map, the largest; a map takes 121 predictions.
        connections: open at a time.
        head_s: seconds until the head of a request is complete, also between two requests of a connection.
        body_s: seconds until the body is complete.
        job_s: seconds from the end of the body until there is a prediction; then the client is informed.
        request_s: seconds until the answer has been taken.
        ending_s: seconds for the requests in hand when the server is stopped.
    """

    body: int = 32 * 2**20
    bodies: int = 256 * 2**20
    pixels: int = 64_000_000
    slots: int = 16
    maps: int = 8
    connections: int = 256
    head_s: float = 10.0
    body_s: float = 60.0
    job_s: float = 100.0
    request_s: float = 180.0
    ending_s: int = 5
