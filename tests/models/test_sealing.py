"""A ring of keys: what it sealed opens to itself, there and nowhere else, and nothing else opens at all."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import SealedValueError, SealingKeyError
from models.sealing import KEY_BYTES, KeyRing, header, number_of, recent

PLACE: Final = "drive.bit_locker_key"
TEXT: Final = "238810-662376-Zürich-🚚"
HEADER_BYTES: Final = 5
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

texts: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
places: Final = st.from_regex(r"[a-z_]{1,12}\.[a-z_0-9]{1,12}", fullmatch=True)
keys: Final = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
numbers: Final = st.integers(1, 999_999_999)


def ring(*numbers: int) -> KeyRing:
    """Make a ring of keys that follow from their numbers."""
    return KeyRing({number: key_of(number) for number in numbers})


def key_of(number: int) -> bytes:
    """Make a key, the same for the same number."""
    return bytes([number]) * KEY_BYTES


@given(text=texts, place=places, key=keys, number=numbers)
def test_what_was_sealed_opens_to_itself(text: str, place: str, key: bytes, number: int) -> None:
    """Any text, for any place, by any key; another ring of the same key opens it too."""
    sealed = KeyRing({number: key}).seal(place, text)
    assert KeyRing({number: key}).open(place, sealed) == text
    assert len(sealed) == HEADER_BYTES + NONCE_BYTES + len(text.encode()) + TAG_BYTES


@given(text=texts.filter(lambda text: len(text) >= 6), number=numbers)
def test_nothing_of_a_text_is_in_what_is_sealed(text: str, number: int) -> None:
    """Neither as it is nor in part; what shows is the number of the key, and how long it is."""
    sealed = KeyRing({number: key_of(7)}).seal(PLACE, text)
    assert text.encode() not in sealed
    assert sealed.startswith(header(number))
    assert number_of(sealed) == number


@given(text=texts, flipped=st.integers(0, 10_000))
def test_a_value_with_any_bit_flipped_does_not_open(text: str, flipped: int) -> None:
    """Of the header, the nonce, the text or the tag."""
    held = ring(1)
    sealed = bytearray(held.seal(PLACE, text))
    byte, bit = divmod(flipped % (len(sealed) * 8), 8)
    sealed[byte] ^= 1 << bit
    with pytest.raises((SealedValueError, SealingKeyError)):
        held.open(PLACE, bytes(sealed))


def test_a_short_value_with_each_bit_flipped_does_not_open() -> None:
    """All of them, one after the other; also on a ring that has the keys of every number that may come of it."""
    held = KeyRing({1 ^ flip: key_of(1) for flip in [0, *(1 << bit for bit in range(1, 32))]})
    held.turn_to(1)
    sealed = held.seal(PLACE, "Ada")
    assert held.open(PLACE, sealed) == "Ada"
    for flipped in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[flipped // 8] ^= 1 << flipped % 8
        with pytest.raises((SealedValueError, SealingKeyError)):
            held.open(PLACE, bytes(altered))


def test_a_value_cut_or_lengthened_anywhere_does_not_open() -> None:
    """From its end, from its beginning, down to nothing, or by a byte more."""
    held = ring(1)
    sealed = held.seal(PLACE, TEXT)
    for length in range(len(sealed)):
        for part in (sealed[:length], sealed[len(sealed) - length :]):
            with pytest.raises((SealedValueError, SealingKeyError)):
                held.open(PLACE, part)
    for more in (sealed + b"\0", b"\0" + sealed, sealed * 2):
        with pytest.raises((SealedValueError, SealingKeyError)):
            held.open(PLACE, more)


@given(here=places, there=places)
def test_a_value_opens_in_its_own_place_alone(here: str, there: str) -> None:
    """Table and column both; the error names the place where it was found, and not the value."""
    held = ring(1)
    sealed = held.seal(here, TEXT)
    if here == there:
        assert held.open(there, sealed) == TEXT
        return
    with pytest.raises(SealedValueError) as refused:
        held.open(there, sealed)
    told = f"{refused.value} {refused.value!r} {refused.value.__cause__!r}"
    assert there in told
    assert TEXT not in told
    assert sealed.hex() not in told


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("drive.drive_id", "extra_drive.drive_id"),
        ("drive.error_log_uri", "drive.verbose_log_uri"),
        ("drive.drive_id", "drive.drive_i"),
        ("drive.drive_id", ""),
        ("", "drive.drive_id"),
    ],
)
def test_places_that_look_alike_are_two(here: str, there: str) -> None:
    """The same column of another table, another column of the same table, a part of a name, no place."""
    held = ring(1)
    with pytest.raises(SealedValueError):
        held.open(there, held.seal(here, TEXT))


@given(key=keys, other=keys, number=numbers)
def test_another_key_of_the_same_number_does_not_open(key: bytes, other: bytes, number: int) -> None:
    """Unless it is the same."""
    sealed = KeyRing({number: key}).seal(PLACE, TEXT)
    if key == other:
        assert KeyRing({number: other}).open(PLACE, sealed) == TEXT
    else:
        with pytest.raises(SealedValueError):
            KeyRing({number: other}).open(PLACE, sealed)


@given(number=numbers, other=numbers)
def test_the_same_key_under_another_number_does_not_open(number: int, other: int) -> None:
    """Not even where the value is made to say the other number."""
    sealed = KeyRing({number: key_of(1)}).seal(PLACE, TEXT)
    held = KeyRing({other: key_of(1)})
    if number == other:
        assert held.open(PLACE, sealed) == TEXT
        return
    with pytest.raises(
        SealingKeyError, match=f"a value in {PLACE} is sealed with key {number}, which is not there"
    ):
        held.open(PLACE, sealed)
    with pytest.raises(SealedValueError):
        held.open(PLACE, header(other) + sealed[HEADER_BYTES:])


def test_the_same_text_is_sealed_differently_each_time() -> None:
    """No nonce comes twice, and nothing of the sealed text repeats."""
    held = ring(1)
    sealed = [held.seal(PLACE, TEXT) for _ in range(2000)]
    body = HEADER_BYTES + NONCE_BYTES
    assert len({value[HEADER_BYTES:body] for value in sealed}) == len(sealed)
    assert len({value[body:] for value in sealed}) == len(sealed)


def test_the_highest_number_seals_and_all_of_them_open() -> None:
    """Until the ring is turned; then what it is turned to seals, and the others open as before."""
    held, old = ring(3, 9, 4), ring(4)
    assert held.numbers == {3, 4, 9}
    assert held.sealing_number == number_of(held.seal(PLACE, TEXT)) == 9
    held.turn_to(4)
    assert held.sealing_number == number_of(held.seal(PLACE, TEXT)) == 4
    assert old.open(PLACE, held.seal(PLACE, TEXT)) == held.open(PLACE, old.seal(PLACE, TEXT)) == TEXT
    with pytest.raises(KeyError):
        held.turn_to(5)
    assert held.sealing_number == number_of(held.seal(PLACE, TEXT)) == 4


def test_a_ring_that_learns_opens_more_and_seals_as_before() -> None:
    """And what it knew by a number stays what it knew."""
    held, other = ring(1), KeyRing({1: key_of(9), 2: key_of(2)})
    held.proven = {1: b"proof"}
    held.learn(other)
    assert held.numbers == {1, 2}
    assert held.sealing_number == 1
    assert held.proven == {1: b"proof"}
    assert held.open(PLACE, other.seal(PLACE, TEXT)) == TEXT
    assert held.open(PLACE, ring(1).seal(PLACE, TEXT)) == TEXT
    assert ring(1).open(PLACE, held.seal(PLACE, TEXT)) == TEXT
    assert other.numbers == {1, 2}


@pytest.mark.parametrize(
    "value", [b"", b"\1", b"\1\0\0\0", b"\2\0\0\0\1" + bytes(40), b"\0\0\0\0\1" + bytes(40), b"Ada Example"]
)
def test_what_no_ring_sealed_is_no_sealed_value(value: bytes) -> None:
    """Too short, of another format, or plain text that somebody wrote past us: it is refused, and not shown."""
    assert number_of(value) is None
    with pytest.raises(SealedValueError, match=PLACE) as refused:
        ring(1).open(PLACE, value)
    assert "Ada" not in str(refused.value)


def test_a_sealed_value_says_its_format_and_its_key() -> None:
    """One byte and four, by which whole tables are searched for an older key."""
    assert header(1) == b"\1\0\0\0\1"
    assert header(0x01020304) == b"\1\1\2\3\4"
    assert number_of(header(0x01020304)) == 0x01020304
    assert ring(5).seal(PLACE, "")[:HEADER_BYTES] == header(5)


def test_a_proof_fits_the_very_key_that_made_it() -> None:
    """Not another key of its number, not its own key by another number, and nothing that is no proof."""
    proof = ring(1).prove()
    assert ring(1).fits(1, proof)
    assert ring(1, 2).fits(1, proof)
    assert not KeyRing({1: key_of(2)}).fits(1, proof)
    assert not KeyRing({2: key_of(1)}).fits(2, proof)
    assert not ring(1, 2).fits(2, proof), "a proof of key 1 says nothing of key 2"
    assert not ring(2).fits(1, proof)
    for no_proof in (
        b"",
        proof[:-1],
        ring(1).seal(PLACE, "this is the key"),
        ring(1).seal("sealing_key.proof", ""),
    ):
        assert not ring(1).fits(1, no_proof)


def test_a_proof_does_not_tell_the_key() -> None:
    """It is in the database, and the key is not."""
    proof = ring(1).prove()
    assert key_of(1) not in proof
    assert key_of(1)[:8] not in proof


def test_what_was_sealed_or_opened_last_is_known_to_this_process() -> None:
    """So that a log line with one of these words can be told; only so many, and only what did open."""
    recent.clear()
    held = ring(1)
    sealed = held.seal(PLACE, "Ada")
    assert list(recent) == ["Ada"]
    recent.clear()
    held.open(PLACE, sealed)
    assert list(recent) == ["Ada"]
    with pytest.raises(SealedValueError):
        held.open("other.place", sealed)
    assert list(recent) == ["Ada"]
    for number in range(3000):
        held.seal(PLACE, str(number))
    assert len(recent) == 2000
    assert recent[-1] == "2999"
