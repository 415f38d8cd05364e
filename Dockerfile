# The HTTP service (docs/serve.md): docker build -t bytecover2-milvus .
FROM python:3.13.5-slim-bookworm

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY bytecover2_milvus bytecover2_milvus
COPY export export
COPY schemas schemas
RUN pip install --no-cache-dir ".[cpu,serve]" && rm -r /source/*

RUN useradd --create-home --uid 10001 service
USER 10001
WORKDIR /home/service

EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=10s --start-period=90s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/healthz', timeout=5)"]
ENTRYPOINT ["bytecover2-milvus"]
CMD ["serve", "--host", "0.0.0.0"]
