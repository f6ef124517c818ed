# The core, with the command fer-repro. No account, no HOME and no rights are needed inside:
#
#   docker build -t fer-repro .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" fer-repro run vggnet --profile smoke
#   docker run --rm --gpus all --shm-size 1g -v "$PWD:/work" -v /path/to/fer2013:/data:ro -e FER2013_ROOT=/data fer-repro run vggnet
#
# DEVICE=cuda (the default): torch as the default package index has it, which on x86-64 brings CUDA and also runs without a GPU.
# DEVICE=cpu: a small image. The CPU builds of torch lie in an index of their own; TORCH_INDEX is its address, which the
# installation page of PyTorch names:
#
#   docker build --build-arg DEVICE=cpu --build-arg TORCH_INDEX=ADDRESS -t fer-repro:cpu .
#
# EXTRAS: what is installed beside the core, for example [book,download].
FROM python:3.11-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY fer_repro fer_repro
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

# For .devcontainer: a checkout is mounted, and `make setup` installs it.
FROM python:3.11-bookworm AS develop
RUN useradd --create-home --uid 1000 developer
USER 1000

FROM python:3.11-slim-bookworm
ARG DEVICE=cuda
ARG TORCH_INDEX=""
ARG EXTRAS=""
COPY constraints.txt /tmp/
COPY --from=wheel /wheel /tmp/wheel
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# torch first: where it comes from the index of CPU builds, nothing else does.
RUN case "$DEVICE:$TORCH_INDEX" in \
      cuda:) pip install --no-cache-dir -c /tmp/constraints.txt torch torchvision ;; \
      cpu:?*) PIP_INDEX_URL="$TORCH_INDEX" pip install --no-cache-dir -c /tmp/constraints.txt torch torchvision ;; \
      *) echo "DEVICE is '$DEVICE', TORCH_INDEX '$TORCH_INDEX': cuda needs no index, and cpu needs the one of CPU builds" >&2; exit 1 ;; \
    esac \
 && wheels=(/tmp/wheel/*.whl) \
 && pip install --no-cache-dir -c /tmp/constraints.txt "fer-repro$EXTRAS @ file://${wheels[0]}" \
 && mkdir --mode 1777 /work
# Whoever runs this may be a user without an account: what programs keep in a home folder goes where anybody can write.
ENV FER_REPRO_CACHE=/tmp/fer_repro MPLCONFIGDIR=/tmp/matplotlib TORCHINDUCTOR_CACHE_DIR=/tmp/inductor USER=somebody
WORKDIR /work
USER 65534:65534
ENTRYPOINT ["fer-repro"]
CMD ["--help"]
