from .audio.load import load_audio as load_audio
from .audio.segments import Segments as Segments
from .embedding.embedder import Embedder as Embedder
from .embedding.milvus_function import ByteCover2EmbeddingFunction as ByteCover2EmbeddingFunction
from .embedding.query import Query as Query
from .embedding.query import embed_query as embed_query
from .errors import BytecoverError as BytecoverError
from .frame import to_dataframe as to_dataframe
from .manifest import Track as Track
from .manifest import read_manifest as read_manifest
from .milvus.collection import TrackCollection as TrackCollection
from .milvus.connection import connected as connected
from .milvus.mapped import FieldMap as FieldMap
from .milvus.mapped import MappedCollection as MappedCollection
from .milvus.search import Match as Match
from .pages.listening import listen as listen

__version__: str
