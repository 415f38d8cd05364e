"""Milvus: connections, the schema, collections, search, and the second stage's fields."""
