"""The catalogue against itself: all pairs that may be one work, and the groups that they make."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
