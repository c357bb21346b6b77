"""Bytes searched as they come, gzip among them unpacked, and what was found; shares no code with the deleter."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tasks.trace_words import Find, Finder, fold, unfolded

KEPT_MAX: Final = 1_000
GZIP_HEAD: Final = b"\x1f\x8b\x08"
GZIP_BYTES_MAX: Final = 1 << 30
_GZIP_DEPTH_MAX: Final = 3
_GZIPS_AT_ONCE: Final = 8
_GZIP_HEADS_MAX: Final = 100_000
_GZIP_PIECE: Final = 1 << 16
# What has the head of a gzip by chance gives less than this before it breaks.
_BYTES_BY_CHANCE: Final = 1_024


@dataclass(frozen=True, slots=True)
class Hit:
    """A word that is still there.

    `word` is its place in the list, the first is 0. `offset` is that of the first byte, or of a later one where
    line breaks lie within; None in a name. In the place, rows are counted from 0 and words are written `[word 0]`.
    """

    word: int
    encoding: str
    place: str
    offset: int | None


@dataclass(slots=True)
class Report:
    """What a search found, what it looked at and what it could not look at; reports add up.

    Of `hits` and of `not_searched` (place, why) 1,000 of each are kept and all are counted. What stands in a
    SQLite database counts as bytes of its file and again as a value. `bytes_searched` includes what was unpacked.
    """

    hits: list[Hit] = field(default_factory=list)
    hits_total: int = 0
    words: set[int] = field(default_factory=set)
    files: int = 0
    bytes_searched: int = 0
    not_searched: list[tuple[str, str]] = field(default_factory=list)
    not_searched_total: int = 0

    @property
    def words_found(self) -> int:
        """How many of the words are still there."""
        return len(self.words)

    def __add__(self, other: "Report") -> "Report":
        return Report(
            (self.hits + other.hits)[:KEPT_MAX],
            self.hits_total + other.hits_total,
            self.words | other.words,
            self.files + other.files,
            self.bytes_searched + other.bytes_searched,
            (self.not_searched + other.not_searched)[:KEPT_MAX],
            self.not_searched_total + other.not_searched_total,
        )

    def add_hit(self, find: Find, place: str, offset: int | None) -> None:
        """Count a hit, and keep it while there is room."""
        self.hits_total += 1
        self.words.add(find.word)
        if len(self.hits) < KEPT_MAX:
            self.hits.append(Hit(find.word, find.encoding, place, offset))

    def leave_out(self, place: str, why: str) -> None:
        """Write down what could not be searched; `why` holds nothing of what stands there."""
        self.not_searched_total += 1
        if len(self.not_searched) < KEPT_MAX:
            self.not_searched.append((place, why))


class GzipAllowance:
    """How much gzip of one file is looked into, all depths together; what is beyond that is told once."""

    def __init__(self, report: Report, bytes_max: int) -> None:
        """Take where to tell it, and how many bytes may be unpacked."""
        self._report: Final = report
        self._bytes_max: Final = bytes_max
        self._bytes: int = 0
        self._heads: int = 0
        self._told: Final[set[str]] = set()

    def begin(self, place: str, depth: int, at_once: int) -> bool:
        """Tell whether one more gzip may be looked into."""
        self._heads += 1
        if self._bytes > self._bytes_max:
            return False
        if depth >= _GZIP_DEPTH_MAX:
            return self._refuse(place, f"gzip within gzip is looked into to a depth of {_GZIP_DEPTH_MAX}")
        if at_once >= _GZIPS_AT_ONCE:
            return self._refuse(place, f"at most {_GZIPS_AT_ONCE} gzips that overlap are looked into")
        if self._heads > _GZIP_HEADS_MAX:
            return self._refuse(place, f"at most {_GZIP_HEADS_MAX:,} gzips of a file are looked into")
        return True

    def spend(self, place: str, unpacked: int) -> bool:
        """Tell whether so many bytes more may be unpacked."""
        self._bytes += unpacked
        return self._bytes <= self._bytes_max or self._refuse(
            place, f"at most {self._bytes_max:,} bytes of a file's gzip are unpacked"
        )

    def _refuse(self, place: str, why: str) -> bool:
        if why not in self._told:
            self._told.add(why)
            self._report.leave_out(place, why)
        return False


class Stream:
    """The bytes of one place, in pieces; nothing is missed where one ends and the next begins."""

    def __init__(
        self, finders: tuple[Finder, Finder], place: str, report: Report, allowance: GzipAllowance, depth: int = 0
    ) -> None:
        """Take finders for bytes as they are and for folded ones, and how many gzips the place lies within."""
        self._plain, self._folded = finders
        self._place: Final = place
        self._report: Final = report
        self._allowance: Final = allowance
        self._depth: Final = depth
        self._gzips: list[_Gzip] = []
        self._size = 0
        self._tail = b""
        self._folded_tail = b""
        self._half_escape = b""

    def feed(self, data: bytes) -> None:
        """Search the next piece."""
        whole = self._tail + data
        fresh = len(self._tail)
        for find in self._plain.finds(whole, fresh):
            self._report.add_hit(find, self._place, self._size - fresh + find.start)
        self._feed_folded(data)
        self._feed_gzips(whole, fresh)
        self._tail = whole[-(self._plain.longest - 1) :]
        self._size += len(data)
        self._report.bytes_searched += len(data)

    def end(self) -> None:
        """Tell that nothing follows."""
        for gzip in self._gzips:
            gzip.end("a gzip was cut off; it is searched up to there")

    def _feed_folded(self, data: bytes) -> None:
        begin = self._size - len(self._half_escape)
        data = self._half_escape + data
        self._half_escape = b"\\" if data.endswith(b"\\") else b""
        data = data.removesuffix(b"\\")
        whole = self._folded_tail + fold(data)
        fresh = len(self._folded_tail)
        finds = list(self._folded.finds(whole, fresh))
        lasts = unfolded(data, [find.end - 1 - fresh for find in finds])
        for find, last in zip(finds, lasts, strict=True):
            self._report.add_hit(find, self._place, begin + last + 1 - (find.end - find.start))
        self._folded_tail = whole[-(self._folded.longest - 1) :]

    def _feed_gzips(self, whole: bytes, fresh: int) -> None:
        view = memoryview(whole)
        self._gzips = [gzip for gzip in self._gzips if gzip.feed(view[fresh:])]
        head = whole.find(GZIP_HEAD, max(0, fresh - len(GZIP_HEAD) + 1))
        while head >= 0:
            if self._allowance.begin(self._place, self._depth, len(self._gzips)):
                gzip = self._begin_gzip()
                if gzip.feed(view[head:]):
                    self._gzips.append(gzip)
            head = whole.find(GZIP_HEAD, head + 1)

    def _begin_gzip(self) -> "_Gzip":
        place = f"{self._place} > gzip"
        inside = Stream((self._plain, self._folded), place, self._report, self._allowance, self._depth + 1)
        return _Gzip(inside, place, self._report, self._allowance)


class _Gzip:
    """One gzip within a stream, unpacked as it comes."""

    def __init__(self, inside: Stream, place: str, report: Report, allowance: GzipAllowance) -> None:
        self._inside: Final = inside
        self._place: Final = place
        self._report: Final = report
        self._allowance: Final = allowance
        self._decoder: Final = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._size = 0

    def feed(self, data: memoryview) -> bool:
        """Unpack and search the next piece; tells whether more may follow."""
        try:
            for start in range(0, len(data), _GZIP_PIECE):
                for unpacked in _unpacked(self._decoder, data[start : start + _GZIP_PIECE]):
                    self._size += len(unpacked)
                    if not self._allowance.spend(self._place, len(unpacked)):
                        return False
                    self._inside.feed(unpacked)
                if self._decoder.eof:
                    self._inside.end()
                    return False
        except zlib.error:
            self.end("a gzip is damaged; it is searched up to there")
            return False
        return True

    def end(self, why: str) -> None:
        """Tell that nothing follows, though something should."""
        self._inside.end()
        if self._size >= _BYTES_BY_CHANCE:
            self._report.leave_out(self._place, why)


def _unpacked(decoder: "zlib._Decompress", data: bytes | memoryview) -> Iterator[bytes]:
    """Unpack a piece, a little at a time; what comes before a damage comes out before the error."""
    while True:
        spare = decoder.copy()
        try:
            unpacked = decoder.decompress(data, _GZIP_PIECE)
        except zlib.error:
            yield _before_damage(spare, data)
            raise
        yield unpacked
        data = decoder.unconsumed_tail
        if decoder.eof or len(unpacked) < _GZIP_PIECE:
            return


def _before_damage(spare: "zlib._Decompress", data: bytes | memoryview) -> bytes:
    """Unpack as much as can be without an error, but for one byte: zlib gives nothing of a call that fails."""
    best, works, fails = b"", 0, _GZIP_PIECE + 1
    while fails - works > 1:
        middle = (works + fails) // 2
        try:
            best = spare.copy().decompress(data, middle)
            works = middle
        except zlib.error:
            fails = middle
    return best
