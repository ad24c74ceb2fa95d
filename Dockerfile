# The repository with its packages, for the commands of the Makefile: the same as outside of a container.
#
#     docker build --tag medtune .
#     docker run --rm --interactive --tty medtune            # make repro
#     docker run --rm --interactive --tty medtune bash
#
# .dockerignore lets code and parameters in, and no history, data, weights, caches, remotes or credentials of
# one's own. The image `tools` has none of the code: .devcontainer uses it for a checkout that is mounted.
FROM python:3.11-slim-bookworm AS tools

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# DVC asks git for commits. The rest comes by make.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends git make \
  && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 --shell /bin/bash medtune \
  && install --directory --owner=medtune --group=medtune /home/medtune/medtune
USER 1000
ENV PIP_NO_CACHE_DIR=1


FROM tools

WORKDIR /home/medtune/medtune

# What the packages depend on comes first: an edit of parameters, stages or tests leaves this layer as it is.
COPY --chown=1000:1000 Makefile pyproject.toml README.md LICENSE ./
COPY --chown=1000:1000 requirements requirements
COPY --chown=1000:1000 medtune medtune
RUN make install

COPY --chown=1000:1000 . .

# The repository of the image has one commit: that of the checkout may have tokens in its configuration.
RUN git init --quiet --initial-branch=main \
  && git add --all \
  && git -c user.name=medtune -c user.email=medtune@localhost commit --quiet --message "As built"

CMD ["make", "repro"]
