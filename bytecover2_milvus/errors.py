"""Everything this package raises on purpose.

A message says what, where (file or address) and what to do, in one line; the command line prints it as it is and exits
with 1.

::

    BytecoverError
    ├── AudioError               a file that gives no usable waveform
    │   ├── UnreadableAudio      not audio, corrupt, no audio stream, missing
    │   │   └── AudioBeyondLimits  larger or longer than the limits allow
    │   ├── EmptyAudio           audio of zero samples
    │   ├── SilentAudio          no sample above the silence floor
    │   └── ShortAudio           below the shortest duration that can be embedded
    ├── ConfigError              unknown key or impossible value in a configuration
    ├── ManifestError            missing file, column or value in a manifest
    ├── SongError                a score that cannot be read as a song
    ├── BundleError              missing, damaged or foreign bundle
    ├── DeviceError              a device was asked for and is not to be had, or fails
    ├── CheckpointError          missing, damaged or mismatched checkpoint
    ├── TrainingError            works that nothing can be learned from, or a loss that is not finite
    ├── ExportError              the exported graph does not reproduce the network
    ├── OutputError              a file or folder that cannot be written
    ├── ChromaError              chroma that is damaged or cannot be aligned
    │   └── ShortChroma          too short to be aligned: only the embedding can be compared
    ├── VectorsError             a file of embeddings that cannot be read
    ├── ClusterError             a Ray cluster that is missing, lost or of no use
    └── CollectionError          what Milvus refused, or what we refuse to ask of it
        ├── MilvusUnavailable    no answer at the URI
        ├── CollectionLocked     the embedded folder is open in another process
        ├── CollectionMissing    no collection of that name
        ├── InputRefused         a row or a filter that Milvus does not take
        └── CollectionMismatch   the collection belongs to another model or schema
"""

from __future__ import annotations


class BytecoverError(Exception):
    """Root of the tree: catch this to catch all that is raised on purpose."""


class AudioError(BytecoverError):
    """A file that gives no usable waveform."""


class UnreadableAudio(AudioError):
    """Not audio, corrupt from the start, without an audio stream, or missing."""


class AudioBeyondLimits(UnreadableAudio):
    """Larger, or longer, than the limits allow."""


class EmptyAudio(AudioError):
    """Audio of zero samples."""


class SilentAudio(AudioError):
    """No sample above the silence floor: its embedding would mean nothing."""


class ShortAudio(AudioError):
    """Shorter than the shortest duration that can be embedded."""


class ConfigError(BytecoverError):
    """Unknown key or impossible value in a configuration."""


class ManifestError(BytecoverError):
    """Missing file, column or value in a manifest."""


class SongError(BytecoverError):
    """A score that cannot be read as a song."""


class BundleError(BytecoverError):
    """Missing, damaged or foreign bundle."""


class DeviceError(BytecoverError):
    """A device was asked for and is not to be had, or fails in a computation."""


class CheckpointError(BytecoverError):
    """Missing, damaged or mismatched checkpoint."""


class TrainingError(BytecoverError):
    """Works and tracks that nothing can be learned from, or a loss that is not finite any more."""


class ExportError(BytecoverError):
    """The exported graph does not reproduce the network."""


class OutputError(BytecoverError):
    """A file or folder that cannot be written."""


class ChromaError(BytecoverError):
    """Chroma that is damaged or cannot be aligned."""


class ShortChroma(ChromaError):
    """Too short to be aligned: only the embedding can be compared."""


class VectorsError(BytecoverError):
    """A file of embeddings that cannot be read."""


class ClusterError(BytecoverError):
    """A Ray cluster that is missing, lost or of no use; or Ray itself is missing."""


class CollectionError(BytecoverError):
    """A request that Milvus refused, or that we refuse to make."""


class MilvusUnavailable(CollectionError):
    """No answer at the URI."""


class CollectionLocked(CollectionError):
    """The embedded folder is open in another process."""


class CollectionMissing(CollectionError):
    """No collection of that name."""


class InputRefused(CollectionError):
    """A row or a filter that Milvus does not take, or that we do not offer it; others may fare better."""


class CollectionMismatch(CollectionError):
    """The collection belongs to another model or has another schema."""

    @classmethod
    def of_model(cls, name: str, stored: str, wanted: str) -> CollectionMismatch:
        """The error of a place that holds the embeddings of another model."""
        return cls(
            f"{name}: holds embeddings of model {stored}, not of {wanted}; use that model's bundle, or another place"
        )
