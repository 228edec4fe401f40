# One image for the worker, the sink, the server and the catalog: the checkout and its locked packages.
FROM python:3.12-slim

RUN pip install --no-cache-dir "uv>=0.5"
WORKDIR /app
COPY pyproject.toml hatch_build.py requirements.lock README.md LICENSE ./
COPY headwater headwater
# The lock's versions, checked by its hashes; Spark, Snowflake and the tests' packages stay out. The compiler makes the
# compiled library (headwater/native) and goes again.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && uv pip install --system --no-cache --constraints requirements.lock \
    ".[feast,stream,lake,serve,monitoring,catalog,validation]" \
    && apt-get purge --yes --auto-remove gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY pipelines pipelines
COPY validation validation
COPY marketplace marketplace
COPY feature_repo feature_repo

# The rooms are folders here, not installed packages.
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1
RUN useradd --create-home headwater \
    && mkdir -p feature_repo/.headwater \
    && chown -R headwater feature_repo
USER headwater
ENTRYPOINT ["headwater"]
CMD ["--help"]
