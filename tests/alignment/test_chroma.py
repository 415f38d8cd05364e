"""Chroma sequences: folding, the grid of levels, and their bytes."""

from __future__ import annotations

import base64
import re
import zlib

import numpy as np
import pytest

from bytecover2_milvus.alignment.chroma import (
    CENTRE_BIN,
    STORED_FRAMES,
    WIDTH_BINS,
    _from_base_85,
    decode,
    encode,
    fold,
    pack,
    packed_bytes,
    to_levels,
    unpack,
)
from bytecover2_milvus.alignment.qmax import qmax_scores
from bytecover2_milvus.errors import ChromaError


def test_a_note_counts_for_its_pitch_class_by_how_near_the_centre_it_is():
    notes = np.zeros((84, 3), np.float32)
    notes[45, 0] = 0.2  # A4, alone
    notes[45, 1] = notes[45 + 12, 1] = 0.5  # with A5
    notes[24 + 4, 1] = 1  # E3
    chroma = fold(notes)
    assert chroma.dtype == np.float32 and chroma.shape == (3, 12)
    np.testing.assert_array_equal(chroma[0], np.eye(12)[9])  # whatever its strength
    np.testing.assert_array_equal(chroma[2], np.zeros(12))
    octave, e3 = np.exp(-0.5 * (12 / WIDTH_BINS) ** 2), np.exp(-0.5 * ((CENTRE_BIN - 28) / WIDTH_BINS) ** 2)
    assert chroma[1, 4] == pytest.approx(e3 / (0.5 * (1 + octave)), rel=1e-5) and chroma[1, 9] == 1


@pytest.mark.parametrize(
    "notes", [np.zeros((83, 4)), np.zeros(84), np.full((84, 4), np.nan), np.full((84, 4), -1.0)], ids=range(4)
)
def test_what_is_no_map_of_notes_is_refused(notes):
    with pytest.raises(ChromaError, match="map of notes"):
        fold(notes)


def test_levels_come_back_from_their_bytes():
    levels = np.random.default_rng(0).integers(0, 16, (520, 24)).astype(np.uint8)
    data = pack(levels)
    assert len(data) == packed_bytes(520, 24) == 6240 < 10_000
    np.testing.assert_array_equal(unpack(data, 520, 24, "a"), levels)
    assert pack(levels[:1])[:1] == bytes([levels[0, 0] + 16 * levels[0, 1]])
    assert unpack(b"", 0, 24, "a").shape == (0, 24)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_bytes_of_another_length_name_their_track(change):
    data = pack(np.zeros((50, 12), np.uint8))
    with pytest.raises(ChromaError, match=r"rock/song 7: \d+ bytes of chroma, where 50 frames of 12 channels take 300"):
        unpack(change(data), 50, 12, "rock/song 7")


def test_chroma_is_rounded_to_the_nearest_level():
    chroma = np.linspace(0, 1, 24).reshape(2, 12)
    levels = to_levels(chroma)
    assert levels.dtype == np.uint8 and levels[0, 0] == 0 and levels[-1, -1] == 15
    assert np.abs(levels / 15 - chroma).max() <= 0.5 / 15 + 1e-9
    np.testing.assert_array_equal(to_levels(levels), levels)


@pytest.mark.parametrize(
    ("chroma", "reason"),
    [
        (np.full((3, 12), np.nan), "NaN"),
        (np.full((3, 12), 1.01), "outside"),
        (np.full((3, 12), -0.01), "outside"),
        (np.full((3, 12), 16, np.uint8), "level of 16"),
        (np.zeros((3, 13)), "multiple of 12"),
        (np.zeros(12), "multiple of 12"),
    ],
)
def test_what_is_no_chroma_is_refused_by_the_name_of_its_track(chroma, reason):
    with pytest.raises(ChromaError, match=f"^blues: .*{reason}"):
        to_levels(chroma, "blues")


def test_errors_of_half_a_level_hardly_change_scores():
    """Four bits are enough: with half a level more or less in every value, tracks score as before, within a tenth."""
    rng = np.random.default_rng(1)
    notes = rng.gamma(0.3, size=(84, 150))
    shares = (0.1, 0.25, 0.4)  # of other music
    mixed = [fold((1 - share) * notes + share * rng.gamma(0.3, size=notes.shape)) for share in shares]
    noisy = [np.clip(chroma + rng.uniform(-0.5, 0.5, chroma.shape) / 15, 0, 1) for chroma in mixed]
    clean, changed = qmax_scores(fold(notes), mixed)[:, 0], qmax_scores(fold(notes), noisy)[:, 0]
    np.testing.assert_allclose(changed, clean, rtol=0.1)


@pytest.mark.parametrize("n_bytes", range(12))
def test_base_85_is_that_of_the_standard_library(n_bytes: int) -> None:
    data = np.random.default_rng(n_bytes).bytes(n_bytes)
    assert _from_base_85(base64.b85encode(data).decode()) == data
    for wrong in ("~~~~~", "0000 ", "ä0000", '"0000'):  # beyond 32 bits, or no digits
        with pytest.raises(ValueError):
            base64.b85decode(wrong)
        with pytest.raises(ValueError):
            _from_base_85(wrong)


@pytest.mark.parametrize("n_frames", [0, 1, 520, STORED_FRAMES])
def test_what_is_encoded_is_decoded(n_frames: int) -> None:
    """Also noise, which nothing compresses: what is stored at most fits a field of Milvus."""
    levels = np.random.default_rng(0).integers(0, 16, (n_frames, 36)).astype(np.uint8)
    text = encode(levels)
    assert text.isascii() and len(text) <= 65_535
    np.testing.assert_array_equal(decode(text, 36, "t"), levels)


def test_the_end_of_a_long_track_is_not_stored() -> None:
    levels = np.random.default_rng(0).integers(0, 16, (STORED_FRAMES + 5, 36)).astype(np.uint8)
    np.testing.assert_array_equal(decode(encode(levels), 36, "t"), levels[:-5])


def test_a_damaged_text_never_gives_other_levels() -> None:
    """Every place of the text, every kind of damage: an error that names the track, or what was stored."""
    levels = np.random.default_rng(0).integers(0, 16, (9, 36)).astype(np.uint8)
    text = encode(levels)
    other = {character: chr(35 + (ord(character) - 34) % 60) for character in set(text)}
    damaged = [text[:i] + other[text[i]] + text[i + 1 :] for i in range(len(text))]
    damaged += [text[:-1], text[:-5], text[5:], text + text, text + "00000", "", "\0", "ä", " " + text]
    silent = 0
    for wrong in damaged:
        try:
            np.testing.assert_array_equal(decode(wrong, 36, 'My "song"'), levels)
            silent += 1
        except ChromaError as error:
            assert re.match(r'My "song": its stored chroma is damaged .*; delete the track and', str(error))
    assert silent <= 1  # bits after the end, which say nothing of the levels
    for channels in (24, 48, 120):  # 9 frames of 36 are no whole frames of these, but for 324 = 27 x 12
        if levels.size % channels:
            with pytest.raises(ChromaError, match=f"not whole frames of {channels} channels"):
                decode(text, channels, "t")


def test_a_small_text_that_unpacks_to_much_is_refused() -> None:
    bomb = base64.b85encode(bytes(4) + zlib.compress(bytes(1 << 26), 9, wbits=-15)).decode()
    with pytest.raises(ChromaError, match="its checksum is another"):
        decode(bomb, 36, "t")
