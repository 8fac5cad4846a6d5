# docker build -t seg25d .            documentation/get_started/installation.md has the arguments and how to run it
# BASE: any image with Python 3.11 to 3.13, or of a Debian or Ubuntu that has one, such as those of CUDA.
ARG BASE=python:3.12-slim

FROM ${BASE} AS python
# Every path of the steps is a variable: tests/test_dockerfile.py runs them in a folder of its own.
ENV VIRTUAL_ENV=/opt/seg25d SOURCE=/opt/source WHEEL=/opt/wheel
RUN command -v python3 > /dev/null || { \
        apt-get update && \
        apt-get install --yes --no-install-recommends python3 python3-venv && \
        rm -rf /var/lib/apt/lists/*; \
    }
RUN python3 -m venv "$VIRTUAL_ENV"
ENV PATH=$VIRTUAL_ENV/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

FROM python AS wheel
COPY . $SOURCE
RUN pip wheel --no-deps --wheel-dir "$WHEEL" "$SOURCE"

FROM python
# torch comes first, in a layer that a change of seg25d leaves alone. TORCH_OPTIONS: options of pip, such as an index.
ARG TORCH_OPTIONS=""
COPY constraints.txt $WHEEL/
RUN pip install --constraint "$WHEEL/constraints.txt" torch $TORCH_OPTIONS
ARG EXTRAS=dicom,report
COPY --from=wheel $WHEEL $WHEEL
RUN pip install --constraint "$WHEEL/constraints.txt" "seg25d[$EXTRAS] @ file://$(ls "$WHEEL"/seg25d-*.whl)"
# Whoever runs it can write there, also with `docker run --user`, so that files belong to whom they should.
ENV SEG25D_WORKSPACE=/workspace
RUN install -d -m 1777 "$SEG25D_WORKSPACE"
# What has no name in the container asks these variables for it, and for a place of its settings.
ENV HOME=$SEG25D_WORKSPACE USER=seg25d
USER 1000:1000
VOLUME $SEG25D_WORKSPACE
WORKDIR $SEG25D_WORKSPACE
ENTRYPOINT ["seg25d"]
CMD ["--help"]
