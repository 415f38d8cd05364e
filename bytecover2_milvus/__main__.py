"""``python -m bytecover2_milvus`` is the command ``bytecover2-milvus``."""

from .cli import main

main(prog_name="bytecover2-milvus")
