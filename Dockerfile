# An image in which `make demo`, `make test` and the tools run; tools/setup_env.py does the work.
#
#   docker build -t cmt_aqr .
#   docker build -t cmt_aqr:cuda --build-arg DEVICE=cuda .
#   docker run --rm -it --shm-size=8g [--gpus all] -v /path/to/nuscenes:/opt/cmt_aqr/data/nuscenes cmt_aqr
#
# No CUDA image is needed: torch and spconv bring CUDA's libraries, and the driver comes from the
# host. This image was never built by the authors, who have no place to; its set-up is tested.

# Its Python is 3.11, with which the versions in requirements/ are tested.
FROM debian:bookworm-slim

# Kept at run time, so that a container without a GPU does not replace a CUDA environment.
ARG DEVICE=cpu
ENV DEVICE=${DEVICE}
# What NVIDIA's container runtime reads, and CUDA images set by themselves.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential ca-certificates git python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/cmt_aqr
COPY . .
RUN make setup && rm -rf ~/.cache/pip

ENV PATH=/opt/cmt_aqr/.venv/bin:${PATH}
CMD ["bash"]
