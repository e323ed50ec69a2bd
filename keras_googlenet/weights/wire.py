"""Protocol buffers from a file that nobody vouches for: read field by field, nothing copied.

Google's own library would build objects for every field before we could look at one, so that a
file of 50 MB could ask for gigabytes. Source: protobuf.dev, "Encoding".
"""

from collections.abc import Iterator

from keras_googlenet.errors import UserError

MOST_FIELDS = 1_000_000  # the published files have under 10,000
MOST_NAME = 1000  # bytes of a layer's name
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5  # wire types


class Wire:
    """The fields of nested messages, each message a range of byte offsets.

    Args:
        content: The whole file.

    Example:
    >>> wire = Wire(memoryview(bytes([8, 150, 1])))
    >>> list(wire.fields())
    [(1, 150)]
    """

    def __init__(self, content: memoryview):
        self.content = content
        self._left = MOST_FIELDS

    def fields(self, message: range | None = None) -> Iterator[tuple[int, int | range]]:
        """Walks through a message.

        Args:
            message: Where it stands; the whole file if not given.

        Yields:
            `(field number, value)`: an integer, or where the bytes of any other type stand.

        Raises:
            UserError: If the bytes are no fields, naming the offset.
        """
        at, end = (0, len(self.content)) if message is None else (message.start, message.stop)
        while at < end:
            begin = at
            self._left -= 1
            if self._left < 0:
                raise UserError(f"more than {MOST_FIELDS} fields before byte {at}; is it weights?")
            key, at = self._varint(at, end)
            number, kind = key >> 3, key & 7
            if kind == VARINT:
                value, at = self._varint(at, end)
                yield number, value
                continue
            if kind == LENGTH:
                size, at = self._varint(at, end)
            elif kind in (FOUR_BYTES, EIGHT_BYTES):
                size = 4 if kind == FOUR_BYTES else 8
            else:
                raise UserError(f"byte {begin} begins no field that exists; the file is damaged.")
            if number == 0 or size > end - at:
                raise UserError(
                    f"byte {begin} announces {size} bytes where {end - at} are left; the file is "
                    "damaged or cut off."
                )
            yield number, range(at, at + size)
            at += size

    def integers(self, value: int | range, most: int) -> list[int]:
        """Reads a repeated integer, packed or not, of at most `most` numbers."""
        if isinstance(value, int):
            return [value]
        numbers, at = [], value.start
        while at < value.stop:
            if len(numbers) == most:
                raise UserError(f"byte {at}: more than {most} dimensions; the file is damaged.")
            number, at = self._varint(at, value.stop)
            numbers.append(number)
        return numbers

    def text(self, value: int | range) -> str:
        """Reads a name."""
        if isinstance(value, int) or len(value) > MOST_NAME:
            raise UserError("a name is no text or too long; the file is damaged.")
        try:
            return str(self.content[value.start : value.stop], "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"byte {value.start}: a name is no text; is it damaged?") from error

    def bytes(self, value: int | range) -> memoryview:
        """Returns the bytes of a field."""
        return self.content[value.start : value.stop]

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        number = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise UserError(f"the file is cut off at byte {at}; download it again.")
            byte = self.content[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number, at
        raise UserError(f"byte {at} continues a number of over 70 bits; the file is damaged.")


def message(value: int | range) -> range:
    """Returns a field's value as a nested message, or says that it is none."""
    if isinstance(value, int):
        raise UserError("a number stands where a message should; the file is damaged.")
    return value
