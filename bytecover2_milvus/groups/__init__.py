"""Groups of tracks of a catalogue that are one work, found by comparing the tracks with each other."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
