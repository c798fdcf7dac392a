"""The text of files that people write: UTF-8, or what a byte order mark says; never a guess."""

MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
"""Byte order marks, those that begin like another one first."""


def decode(content: bytes) -> str:
    """The text of a file, without its byte order mark.

    Raises:
        ValueError: the bytes are no text in UTF-8, nor in what their mark says; the sentence says what to do.
    """
    encoding = encoding_by_mark(content) or "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"the text is not {_name(encoding)} in line {line} (byte {content[error.start]:#04x}); {advice(content)}"
        ) from error
    if "\0" in text:
        raise ValueError(f"the text holds NUL characters; {advice(content)}")
    return text


def encoding_by_mark(content: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning names, or None."""
    return next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), None)


def advice(content: bytes) -> str:
    """How to make UTF-8 of a file, by its first bytes."""
    encoding = encoding_by_mark(content) or _by_zeros(content[:400])
    source = {"utf-8-sig": "UTF-8"}.get(encoding or "", (encoding or "WINDOWS-1252").upper())
    return f"convert it, for example with: iconv -f {source} -t UTF-8"


def _by_zeros(head: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, where the zero bytes of plain letters stand as these have them."""
    if len(head) < 4 or b"\0" not in head:
        return None
    zero = [sum(byte == 0 for byte in head[place::4]) / max(len(head[place::4]), 1) > 0.6 for place in range(4)]
    shapes: dict[tuple[bool, ...], str] = {
        (False, True, True, True): "utf-32le",
        (True, True, True, False): "utf-32be",
        (False, True, False, True): "utf-16le",
        (True, False, True, False): "utf-16be",
    }
    return shapes.get(tuple(zero))


def _name(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper()
