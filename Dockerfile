# syntax=docker/dockerfile:1
# liver-monai in a container: everything is fetched when the image is built, nothing when it runs.
#
#   docker build --target gpu -t liver-monai:gpu .
#   docker build --target cpu -t liver-monai:cpu --secret id=pip,src=pip.conf .
#   docker run --rm --network none -v CTS:/data/cts:ro -v RUN:/data/run:ro -v MASKS:/data/masks \
#     --user "$(id -u):$(id -g)" liver-monai:cpu predict /data/cts --bundle /data/run -o /data/masks
#
# pip's ordinary torch for Linux brings CUDA and is what `gpu` takes (start it with --gpus all). `cpu` takes a build
# without CUDA, a tenth of the size, from wherever pip.conf says that one is; without it the build stops and says so.

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /source
COPY . .
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:3.11-slim-bookworm AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLBACKEND=Agg \
    MPLCONFIGDIR=/var/cache/matplotlib \
    HF_HUB_OFFLINE=1
# The last line: whatever asks for weights from a hub fails at once instead of waiting for a network.
COPY constraints.txt /opt/constraints.txt
RUN useradd --create-home --uid 10001 liver \
    && install --directory --mode=1777 /var/cache/matplotlib
ENTRYPOINT ["liver-monai"]
CMD ["--help"]

FROM base AS gpu
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python -m pip install --constraint /opt/constraints.txt /wheel/*.whl
USER 10001
WORKDIR /home/liver
RUN ["liver-monai", "doctor"]

FROM base AS cpu
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python -m pip install --constraint /opt/constraints.txt "$(echo /wheel/*.whl)[onnx]" \
    && python -c "import sys, torch; sys.exit('this torch brings CUDA: name a CPU build in pip.conf' if torch.version.cuda else 0)"
USER 10001
WORKDIR /home/liver
RUN ["liver-monai", "doctor"]
