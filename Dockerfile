# mbridge in a container, with the Node.js, the engine and the dependencies of its own that a bundle holds:
#
#   docker build -t mbridge .                     for GPUs: docker run --gpus all --ipc host mbridge doctor
#   docker build -t mbridge:cpu --target cpu .    for CPUs: docker run --shm-size 2g mbridge:cpu pretrain qwen3-tiny --nproc 2
#
# The CUDA engine runs on drivers that serve the CUDA of its image. Ranks talk through /dev/shm, which Docker keeps at 64 MiB
# unless it is told otherwise.
ARG CUDA=13.0.1
ARG NODE=20

FROM node:${NODE}-bookworm-slim AS node

FROM nvidia/cuda:${CUDA}-devel-ubuntu22.04 AS build
RUN apt-get update && apt-get install -qy --no-install-recommends cmake g++ ninja-build xz-utils && rm -rf /var/lib/apt/lists/*
COPY --from=node /usr/local /usr/local/node
ENV PATH=/usr/local/node/bin:$PATH MBRIDGE_CUDA=1 MBRIDGE_CUDA_ARCHS=all
WORKDIR /src
COPY . .
RUN npm ci && npm run build:tests && node scripts/bundle.mjs --level 0 --out /bundle.tar.xz \
  && mkdir /opt/mbridge && tar -C /opt/mbridge --strip-components=1 -xJf /bundle.tar.xz

# The engine needs glibc 2.35, that of the stage above, or newer.
FROM debian:bookworm-slim AS cpu
COPY --from=build /opt/mbridge /opt/mbridge
ENV PATH=/opt/mbridge:$PATH
WORKDIR /work
ENTRYPOINT ["mbridge"]
CMD ["--help"]

# With cuBLAS, NCCL and cuDNN.
FROM nvidia/cuda:${CUDA}-cudnn-runtime-ubuntu22.04 AS cuda
COPY --from=build /opt/mbridge /opt/mbridge
ENV PATH=/opt/mbridge:$PATH
WORKDIR /work
ENTRYPOINT ["mbridge"]
CMD ["--help"]
