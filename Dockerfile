# CPU:   docker build -t gtft .
# CUDA:  docker build -t gtft:cuda --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 .
# Run:   docker run --rm -v "$PWD/out:/town/.gtft" gtft run mol-gtft-quickstart
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

RUN if ! command -v python3 >/dev/null || ! python3 -c 'import venv, ensurepip' 2>/dev/null; then \
      apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; \
    fi

WORKDIR /opt/gtft
COPY pyproject.toml constraints.txt README.md ./
COPY gtft gtft
COPY formulas formulas
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt '.[train]'

COPY examples/town /town/examples/town
ENV PATH=/opt/venv/bin:$PATH HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1
RUN useradd --create-home --uid 10001 gtft && mkdir -p /town/.gtft && chown -R gtft /town
USER gtft
WORKDIR /town
VOLUME /town/.gtft
ENTRYPOINT ["gtft"]
CMD ["--help"]
