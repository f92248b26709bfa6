# `make demo` and `make test` need Python 3.11, make and a package index; everything else they install into .venv.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
SERVERS := $(or $(STEPCODER_SERVERS_VENV),.venv-servers)
MANIFEST_TOOLS := $(or $(STEPCODER_MANIFESTS_VENV),.venv-manifests)
TORCH := $(shell grep '^torch==' constraints.txt)
RUN ?= runs/demo
DOCKER ?= docker
DOCKER_BUILD ?=
DEVICE ?= cuda
# Files of tests that run at the same time; each takes a core and up to two GiB.
TEST_JOBS ?= 2
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' stepcoder/__init__.py)
REVISION = $(shell git rev-parse --short=12 HEAD 2>/dev/null)

.PHONY: demo test lint types format compile check-generated examples install servers images image-tools image-trainer \
  hostile-in-container manifest-tools check-manifests clean

demo: $(READY)  ## the whole pipeline on the shipped problems, in a few minutes
	$(BIN)/python -m pipelines.local --preset demo --out $(RUN)

test: $(READY)  ## all tests that this machine can run
	$(BIN)/python -m pytest --numprocesses $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

lint: $(READY)  ## style and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

format: $(READY)  ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

compile: $(READY)  ## write all that is generated: pipeline YAML, component YAML, tables
	$(BIN)/python -m pipelines.compile

check-generated: $(READY)  ## compare all that is generated with what is committed
	$(BIN)/python -m pipelines.compile --check

examples: $(READY)  ## write the shipped problems anew
	$(BIN)/python -m examples.generate

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,pipeline,sandbox,service,dev]'
	@touch $@

# An environment of their own: what servers pin would hold the library's packages back.
servers: $(SERVERS)/.installed  ## the real servers that tests marked s3 or mlflow start

$(SERVERS)/.installed: tests/servers/requirements.txt
	$(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/pip install --quiet --requirement tests/servers/requirements.txt
	@touch $@

# DOCKER_BUILD holds further options of `docker build`; DEVICE=cpu gives a trainer without CUDA.
define image
	DOCKER_BUILDKIT=1 $(DOCKER) build $(DOCKER_BUILD) --file images/$(1)/Dockerfile --tag stepcoder/$(1):$(VERSION) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(2) .
	@mkdir -p build/sbom
	$(DOCKER) run --rm --network none --entrypoint cat stepcoder/$(1):$(VERSION) /opt/stepcoder/share/sbom.cdx.json \
	  > build/sbom/$(1)-$(VERSION).cdx.json
endef

images: image-tools image-trainer  ## both images, and what is in them in build/sbom

image-tools:  ## the image without torch: checks, gate, registry, the sandbox service
	$(call image,tools)

image-trainer:  ## the image with torch: CUDA, or DEVICE=cpu
	$(call image,trainer,--build-arg DEVICE=$(DEVICE))

# As nobody and without a single capability: what seals programs must need neither.
hostile-in-container: $(READY)  ## the hostile programs in a container of stepcoder/tools
	$(DOCKER) run --rm --network none --cap-drop ALL --user 65534:65534 --tmpfs /tmp:exec,mode=1777 \
	  --volume "$(CURDIR)":/repository:ro --volume "$(CURDIR)/$(VENV)"/lib/python3.11/site-packages:/packages:ro \
	  --env PYTHONPATH=/repository:/packages --env PYTHONDONTWRITEBYTECODE=1 --workdir /repository \
	  --entrypoint python stepcoder/tools:$(VERSION) -m pytest -q -p no:cacheprovider tests/sandbox/hostile

manifest-tools: $(MANIFEST_TOOLS)/.installed  ## the checkers that tests marked manifests run

# An environment of their own: what checkov pins would hold the library's packages back.
$(MANIFEST_TOOLS)/.installed: tests/manifests/requirements.txt
	$(PYTHON) -m venv $(MANIFEST_TOOLS)
	$(MANIFEST_TOOLS)/bin/pip install --quiet --requirement tests/manifests/requirements.txt
	@touch $@

check-manifests: $(READY) manifest-tools  ## what kubectl would apply; needs kubectl 1.27 or newer
	STEPCODER_REQUIRE=manifests $(BIN)/python -m pytest tests/manifests

clean:  ## remove the environment and all runs
	rm -rf $(VENV) .venv-servers .venv-manifests runs build dist *.egg-info
