from .audio import load_audio as load_audio
from .collection import TrackCollection as TrackCollection
from .embedder import Embedder as Embedder
from .embedding_function import ByteCover2EmbeddingFunction as ByteCover2EmbeddingFunction
from .errors import BytecoverError as BytecoverError
from .manifest import Track as Track
from .manifest import read_manifest as read_manifest
from .mapped import FieldMap as FieldMap
from .mapped import MappedCollection as MappedCollection
from .match import Match as Match
from .milvus import connected as connected
from .segments import Query as Query
from .segments import Segments as Segments
from .segments import embed_query as embed_query

__version__: str
