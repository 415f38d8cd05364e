"""Ingest: files in, rows of a collection out, on this machine, on a Ray cluster, or by way of files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
