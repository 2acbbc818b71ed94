# docker build --tag senet .                                    PyTorch for CPUs
# docker build --tag senet:cuda --build-arg DEVICE=cuda .       PyTorch for NVIDIA GPUs; run with --gpus all
ARG DEVICE=cpu

FROM python:3.13-slim AS pytorch-cpu
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

# The wheels of PyPI bring CUDA's libraries; the driver is the host's.
FROM python:3.13-slim AS pytorch-cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM pytorch-${DEVICE}
# Fused passes are compiled: by Inductor with OpenMP on a CPU, by Triton with a C compiler on a GPU.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 senet
WORKDIR /opt/senet
COPY pyproject.toml README.md LICENSE ./
COPY src src
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[all]'

USER 1000
WORKDIR /home/senet
ENTRYPOINT ["senet"]
CMD ["--help"]
