# An image in which `make demo`, `make test` and the tools run; what it does is tools/setup_env.py's.
#
#   docker build -t cmt_aqr .
#   docker build -t cmt_aqr:cuda --build-arg DEVICE=cuda \
#       --build-arg BASE=nvidia/cuda:12.8.1-devel-ubuntu24.04 .
#   docker run --rm -it --shm-size=8g [--gpus all] -v /path/to/nuscenes:/opt/cmt_aqr/data/nuscenes cmt_aqr
#
# Not tried as an image: it was written where none can be built. The set-up that it calls is tested.

# Python 3.11, which the versions in requirements/ are tried with; Ubuntu 24.04 has 3.12.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

ARG DEVICE=cpu
# Of the GPUs to compile mmcv for, because none is there to ask during a build.
ARG TORCH_CUDA_ARCH_LIST="8.0;8.6;8.9;9.0+PTX"
# A container without a GPU must not make its environment anew for CPUs.
ENV DEVICE=${DEVICE}

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential ca-certificates git python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/cmt_aqr
COPY . .
# NVIDIA's driver comes into a container when it runs; until then its stub lets spconv be imported.
RUN stub=/usr/local/cuda/lib64/stubs/libcuda.so; \
    if [ -e "$stub" ]; then \
        mkdir /tmp/driver && ln -s "$stub" /tmp/driver/libcuda.so.1 \
        && export LD_LIBRARY_PATH="/tmp/driver:${LD_LIBRARY_PATH:-}"; \
    fi; \
    make setup && rm -rf /tmp/driver ~/.cache/pip

ENV PATH=/opt/cmt_aqr/.venv/bin:${PATH}
CMD ["bash"]
