"""The bands that an arrangement is drawn from: their instruments, styles and manners."""

from __future__ import annotations

from dataclasses import dataclass

from .comping import COMPING_STYLES
from .drums import DRUM_STYLES
from .patterns import BASS_STYLES


@dataclass(frozen=True)
class Band:
    """A way of playing: from each tuple an arrangement picks, so two covers by one kind of band still differ."""

    name: str
    leads: tuple[str, ...]
    comping: tuple[str, ...]  # instruments
    comping_styles: tuple[str, ...]
    n_comping: tuple[int, ...] = (1, 2)
    basses: tuple[str, ...] = ()
    bass_styles: tuple[str, ...] = ("whole", "root-fifth")
    drums: tuple[str, ...] = ()
    swing: float = 0.0  # chance that off-beats are late
    rubato: float = 0.01  # depth of the tempo's breathing, as a share
    jitter_s: float = 0.012  # spread of onsets around the beat
    ornaments: float = 0.05  # chance per note
    freedom: float = 0.12  # chance per note of a changed rhythm


_KEYS = ("piano", "upright piano", "electric piano")
_SUNG = ("voice", "voice", "raw voice")
_ANY_LEAD = (
    "voice", "raw voice", "choir", "flute", "whistle", "violin", "cello", "oboe", "saxophone", "clarinet", "harmonica",
    "accordion", "trumpet", "nylon guitar", "steel guitar", "electric guitar", "driven guitar", "fuzz guitar",
    "pedal steel", "mandolin", "banjo", "harp", "piano", "electric piano", "harpsichord", "marimba", "vibraphone",
    "organ", "synth lead", "square lead", "pluck synth",
)  # fmt: skip
_ANY_COMPING = (
    "choir", "strings", "accordion", "brass", "nylon guitar", "steel guitar", "electric guitar", "driven guitar",
    "fuzz guitar", "muted guitar", "mandolin", "banjo", "harp", "piano", "upright piano", "electric piano", "clavinet",
    "harpsichord", "marimba", "vibraphone", "organ", "church organ",
    "synth pad",
    "pluck synth",
)  # fmt: skip
_ANY_BASS = ("double bass", "electric bass", "driven bass", "synth bass", "tuba")

BANDS: tuple[Band, ...] = (
    Band(
        "pop group", _SUNG, ("piano", "electric guitar", "steel guitar", "synth pad", "strings", "electric piano"),
        ("block", "pulse", "eighths", "strum", "pad", "arpeggio up", "stabs", "broken"), (2, 3),
        ("electric bass", "synth bass"), ("pulse", "eighths", "syncopated", "dotted"),
        ("rock", "half time", "breakbeat", "four on the floor", "wash", "motown", "sixteenths", "disco"),
    ),
    Band(
        "rock group", ("voice", "raw voice", "raw voice", "driven guitar", "electric guitar"),
        ("driven guitar", "fuzz guitar", "electric guitar", "organ"), ("power", "eighths", "strum", "riff", "block"),
        (1, 2, 3), ("electric bass", "driven bass"), ("eighths", "pulse", "dotted"),
        ("rock", "half time", "train", "wash", "wash", "toms", "motown"),
    ),
    Band(
        "singer with guitar", _SUNG, ("nylon guitar", "steel guitar"),
        ("strum", "arpeggio wave", "arpeggio up", "boom-chuck", "broken", "roll"), (1,),
        rubato=0.025, freedom=0.2,
    ),
    Band(
        "singer with piano", (*_SUNG, "violin", "flute", "cello"), _KEYS,
        ("block", "arpeggio wave", "alberti", "pulse", "broken", "roll", "halves", "charleston"), (1,),
        rubato=0.035, freedom=0.18, ornaments=0.08,
    ),
    Band(
        "piano solo", ("piano", "upright piano", "electric piano", "harpsichord"), (),
        ("arpeggio wave", "alberti", "block", "broken", "boom-chuck", "roll", "pulse"), (1,),
        rubato=0.04, ornaments=0.12,
    ),
    Band(
        "guitar solo", ("nylon guitar", "steel guitar", "harp"), (),
        ("arpeggio up", "arpeggio wave", "broken", "roll", "block"), (1,), rubato=0.03, ornaments=0.08,
    ),
    Band(
        "jazz combo", ("saxophone", "trumpet", "voice", "piano", "vibraphone", "clarinet", "electric guitar"),
        ("piano", "electric guitar", "vibraphone", "electric piano", "organ"),
        ("charleston", "stabs", "block", "halves", "offbeat"), (1, 2),
        ("double bass",), ("walking", "walking", "whole", "root-fifth"), ("shuffle", "brushes", "bossa"),
        swing=0.75, jitter_s=0.02, ornaments=0.15, freedom=0.35,
    ),
    Band(
        "folk session", ("violin", "flute", "whistle", "accordion", "banjo", "harmonica", "voice"),
        ("steel guitar", "nylon guitar", "banjo", "accordion", "harp"),
        ("boom-chuck", "strum", "offbeat", "pulse", "block"), (1, 2),
        ("double bass",), ("root-fifth", "pulse", "whole"), ("shaker", "march"),
        swing=0.2, ornaments=0.25, freedom=0.1,
    ),
    Band(
        "country band", ("voice", "voice", "raw voice", "violin", "steel guitar", "pedal steel", "banjo", "harmonica"),
        ("steel guitar", "banjo", "upright piano", "electric guitar", "pedal steel", "mandolin"),
        ("boom-chuck", "strum", "arpeggio up", "offbeat"), (1, 2),
        ("electric bass", "double bass"), ("root-fifth", "pulse"), ("train", "rock", "brushes", "shuffle"), swing=0.3,
    ),
    Band(
        "dance producer", ("voice", "synth lead", "square lead", "pluck synth"),
        ("synth pad", "pluck synth", "piano", "strings"),
        ("offbeat", "eighths", "broken", "stabs", "pad", "arpeggio up"), (2, 3),
        ("synth bass",), ("eighths", "octaves", "syncopated", "pulse"), ("four on the floor", "breakbeat", "disco"),
        rubato=0.0, jitter_s=0.0, ornaments=0.0,
    ),
    Band(
        "reggae group", ("voice", "voice", "organ", "trumpet", "saxophone"), ("electric guitar", "organ", "piano"),
        ("offbeat", "backbeat"), (1, 2), ("electric bass",), ("syncopated", "dotted"), ("one drop", "rock"), swing=0.4,
    ),
    Band(
        "soul revue", ("voice", "raw voice", "raw voice", "saxophone"),
        ("clavinet", "muted guitar", "organ", "brass", "electric piano", "piano"),
        ("riff", "stabs", "offbeat", "backbeat", "charleston", "pad"), (2, 3),
        ("electric bass",), ("syncopated", "walking", "eighths"), ("sixteenths", "motown", "rock", "shuffle"),
        swing=0.3, ornaments=0.25, freedom=0.3, rubato=0.015,
    ),
    Band(
        "garage band", ("raw voice",), ("fuzz guitar", "driven guitar"), ("power", "eighths", "strum"), (1, 2),
        ("driven bass",), ("eighths", "pulse"), ("wash", "rock", "toms", "motown"), rubato=0.03, jitter_s=0.025,
    ),
    Band(
        "blues band", ("raw voice", "voice", "electric guitar", "harmonica"),
        ("electric guitar", "upright piano", "organ", "driven guitar"), ("boom-chuck", "charleston", "eighths", "riff"),
        (1, 2), ("electric bass", "double bass"), ("walking", "pulse"), ("shuffle", "rock", "half time"),
        swing=0.7, ornaments=0.2, freedom=0.35, jitter_s=0.02,
    ),
    Band(
        "bossa trio", ("voice", "flute", "nylon guitar", "saxophone"), ("nylon guitar", "electric piano", "piano"),
        ("charleston", "stabs", "strum", "broken"), (1, 2), ("double bass", "electric bass"), ("dotted", "root-fifth"),
        ("bossa", "shaker", "brushes"), freedom=0.3, jitter_s=0.018,
    ),
    Band(
        "orchestra", ("violin", "flute", "clarinet", "trumpet", "cello", "strings", "voice"),
        ("strings", "brass", "harp", "choir", "cello"),
        ("pad", "block", "tremolo", "pulse", "arpeggio wave", "boom-chuck"), (2, 3),
        ("double bass", "tuba"), ("whole", "pulse", "root-fifth"), ("march",), rubato=0.03, ornaments=0.06,
    ),
    Band(
        "chapel", ("choir", "voice", "church organ", "trumpet"), ("church organ", "choir", "organ"), ("pad", "block",
        "pulse"),
        (1, 2), rubato=0.03, freedom=0.05,
    ),
    Band(
        "marching band", ("trumpet", "clarinet", "brass", "whistle"), ("brass", "clarinet", "accordion"),
        ("offbeat", "boom-chuck", "pulse", "backbeat"), (1, 2), ("tuba",), ("root-fifth", "pulse"), ("march", "waltz"),
    ),
    Band(
        "music box", ("vibraphone", "harp", "pluck synth", "harpsichord", "square lead"), ("vibraphone", "harp",
        "pluck synth"),
        ("arpeggio up", "arpeggio down", "broken", "alberti", "riff"), (1,), jitter_s=0.004,
    ),
    Band("melody alone", _ANY_LEAD, (), (), (0,), rubato=0.05, ornaments=0.12, freedom=0.2),
    # The last one is whoever happens to be there: no rule of taste that a network could lean on.
    Band(
        "mixed company", _ANY_LEAD + 3 * _SUNG, _ANY_COMPING, COMPING_STYLES, (1, 2, 3), _ANY_BASS, BASS_STYLES,
        DRUM_STYLES, swing=0.25, rubato=0.02, ornaments=0.1, freedom=0.2,
    ),
)  # fmt: skip

# Chances of being drawn, weighted towards what is recorded most. A melody alone is rare.
_SHARES = {
    "mixed company": 6.0, "pop group": 3.0, "rock group": 2.5, "soul revue": 1.5, "singer with guitar": 1.5,
    "country band": 1.5, "orchestra": 0.7, "marching band": 0.4, "music box": 0.4, "chapel": 0.5, "melody alone": 0.4,
}  # fmt: skip
_TOTAL = sum(_SHARES.get(band.name, 1.0) for band in BANDS)
BAND_WEIGHTS: tuple[float, ...] = tuple(_SHARES.get(band.name, 1.0) / _TOTAL for band in BANDS)
