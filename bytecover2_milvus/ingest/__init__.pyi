from .batch import IngestRecord as IngestRecord
from .pipeline import ingest as ingest
from .pipeline import ingest_with as ingest_with
