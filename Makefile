# Every target does all it needs on a fresh Debian/Ubuntu machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := config drivers models sync captures reporting evaluation training gateway cloud
SHELL := /bin/bash
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
.DEFAULT_GOAL := help

DATA ?= $(or $(PULSEGATE_DATA),../shared/data)

.PHONY: help setup demo test check bench bench-peers fuzz soak soak-ecg chaos train evaluate release-models clean lock browser node-library message-bus network-tools postgresql mosquitto site site-demo site-programs site-tools tpm-tools

help:
	@echo 'make setup   install everything into .venv'
	@echo 'make demo    run a virtual chest strap, the agent and the clinic page; Ctrl-C stops them (PORT=8600)'
	@echo 'make site    install and run a clinic site on this machine, as root (HOST= SITE_NAME= COUNTRY= REGION= INGESTS= SSH_FROM=)'
	@echo 'make site-demo  run a virtual strap and a hub against the site of make site'
	@echo 'make test    run all tests'
	@echo 'make check   run the linters, type checkers and import rules, and check the requirements'
	@echo 'make bench   measure latency and speed'
	@echo 'make bench-peers     compare our QRS detector with those of other projects'
	@echo 'make fuzz            run five million damaged inputs through the drivers and a million through the decoders of messages (N=inputs; resumes after an interruption)'
	@echo 'make soak    run three virtual days of twelve sensors with random faults (HOURS=, SEED=; resumes after an interruption)'
	@echo 'make soak-ecg  run 30 virtual minutes of twelve ECG straps with random faults'
	@echo 'make chaos   run a site and 20 hubs for 45 minutes, kill every process and break links, disks and clocks (as root; SEED=)'
	@echo 'make train           retrain the models from the recordings in DATA (about two hours; resumes after an interruption)'
	@echo 'make evaluate        recompute the figures on the model cards, and write evaluation reports to build/evaluate'
	@echo 'make release-models  sign the models with KEY=/path/to/key.pem'

setup: $(VENV)/.all

# The demo installs a third of the packages that the tests need, so it starts sooner.
demo: $(VENV)/.demo
	$(BIN)/pulsegate demo $(if $(PORT),--port $(PORT))

$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(VENV)/.made
	$(call install,requirements/demo.txt)
	@touch $@

$(VENV)/.all: requirements/dev.txt pyproject.toml | $(VENV)/.made
	$(call install,requirements/dev.txt)
	@touch $(VENV)/.demo $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'pulsegate needs Python 3.11 or newer: set PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || ./deploy/system-packages python3-venv
	$(PYTHON) -m venv $(VENV)
	@touch $@

define install
	$(BIN)/python -m pip install --quiet --require-hashes --requirement $(1)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
endef

# A site runs programs of its own in /opt/pulsegate, which a change of this checkout does not touch. See docs/site.md.
SITE := /opt/pulsegate
REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
SITE_OPTIONS = $(if $(HOST),--host '$(HOST)') $(if $(SITE_NAME),--site '$(SITE_NAME)') $(if $(COUNTRY),--country '$(COUNTRY)') \
	$(if $(REGION),--region '$(REGION)') $(if $(INGESTS),--ingests '$(INGESTS)') $(if $(SSH_FROM),--ssh-from '$(SSH_FROM)')

site: site-programs
	$(SITE)/bin/pulsegate-cloud site install --units deploy/systemd --revision $(REVISION) $(SITE_OPTIONS)

site-programs: | $(VENV)/.made
	@[ "$$(id -u)" = 0 ] || { echo 'only root installs a site: use sudo make site'; exit 1; }
	./deploy/site-packages
	umask 022; [ -x $(SITE)/bin/python ] || $(PYTHON) -m venv $(SITE)
	@umask 022; [ "$$(cat $(SITE)/revision 2>/dev/null)" = '$(REVISION)' ] || { \
		$(SITE)/bin/python -m pip install --quiet --require-hashes --requirement requirements/site.txt \
		&& PATH="$(SITE)/bin:$$PATH" $(SITE)/bin/python -m pip install --quiet --no-deps --no-build-isolation --force-reinstall . \
		&& echo '$(REVISION)' > $(SITE)/revision; }

site-demo: $(VENV)/.demo
	$(BIN)/python -m gateway.simulate.site_demo

# Node.js, inside playwright and basedpyright, needs libatomic.
node-library:
	@/sbin/ldconfig -p | grep -q libatomic.so.1 || ./deploy/system-packages libatomic1

message-bus:
	@command -v dbus-daemon >/dev/null || ./deploy/system-packages dbus-daemon

browser: setup node-library
	@command -v chromium >/dev/null || ./deploy/system-packages chromium

# The test of what leaves the machine runs in a network of its own.
network-tools:
	@command -v ip >/dev/null || ./deploy/system-packages iproute2

# The tests start a server of their own; the distribution's need not run. Debian keeps its programs outside the path.
postgresql:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || ./deploy/system-packages postgresql

mosquitto:
	@command -v mosquitto >/dev/null || ls /usr/sbin/mosquitto >/dev/null 2>&1 || ./deploy/system-packages mosquitto

# systemd-creds seals a hub key with a TPM 2.0, which is swtpm in the tests.
tpm-tools:
	@command -v swtpm >/dev/null && command -v tpm2_pcrextend >/dev/null && command -v systemd-creds >/dev/null \
		|| ./deploy/system-packages systemd swtpm swtpm-tools tpm2-tools libtss2-tcti-swtpm0

# The tests check the systemd units, and run the proxy and the firewall of a site.
site-tools:
	@PATH="$$PATH:/usr/sbin"; type haproxy nft systemd-analyze ip psql >/dev/null 2>&1 \
		|| ./deploy/system-packages haproxy nftables systemd iproute2 postgresql-client

# Two tests at a time: many wait for a process or a clock. A file's tests stay together, and long files come early.
test: setup browser message-bus network-tools postgresql mosquitto tpm-tools site-tools
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup node-library
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/basedpyright $(PACKAGES)
	$(BIN)/python -m tests.traceability

# Theengs Gateway is under the GPL: it is only measured, in a virtual environment of its own.
bench: setup
	test -x build/theengs/bin/python || $(PYTHON) -m venv build/theengs
	build/theengs/bin/python -m pip install --quiet TheengsGateway==1.8.0 TheengsDecoder==2.5.0 || echo 'without Theengs'
	$(BIN)/python -m benchmarks

# The other projects pin older packages, so they are installed into a virtual environment of their own.
bench-peers: setup
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip install --quiet --editable '.[peers]'
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 build/peers/bin/python -m benchmarks.peers

# atheris follows the coverage of the decoders, and finds the inputs that reach new code.
fuzz: setup
	$(BIN)/python -m pip install --quiet 'atheris==3.0.0'
	$(BIN)/python -m benchmarks.fuzz_decoders drivers $(if $(N),--inputs $(N))
	$(BIN)/python -m benchmarks.fuzz_decoders messages $(if $(N),--inputs $(N))

soak: setup
	$(BIN)/python -m benchmarks.soak build/soak $(if $(HOURS),--hours $(HOURS)) $(if $(SEED),--seed $(SEED))

soak-ecg: setup
	$(BIN)/python -m benchmarks.soak build/soak-ecg --ecg $(if $(SEED),--seed $(SEED))

# docs/chaos.md says what it does. The folder is named by the time: a run that failed keeps its data.
chaos: setup network-tools postgresql mosquitto
	@command -v nft >/dev/null || ls /usr/sbin/nft >/dev/null 2>&1 || ./deploy/system-packages nftables
	$(BIN)/python -m benchmarks.chaos build/chaos/$$(date +%Y-%m-%dT%H%M%S) $(if $(SEED),--seed $(SEED))

# ecg_beat comes last: it trains on the beats that ecg_qrs detects, and is evaluated with the rhythm that ecg_rhythm reports.
MODELS := rr_af ecg_quality ecg_rhythm ppg_quality ecg_organised ecg_qrs ecg_beat
TASKS := qrs beats rhythm rr-af pulse

train: setup
	$(BIN)/python -m pip install --quiet 'torch==2.13.0'
	@for model in $(MODELS); do \
		echo $$model; OMP_NUM_THREADS=1 $(BIN)/python -m training.$$model --data $(DATA) || exit 1; done

# Training writes the model cards. It reuses finished networks, so this recomputes the figures without training again.
evaluate: train
	@mkdir -p build/evaluate
	@for task in $(TASKS); do \
		$(BIN)/pulsegate evaluate $$task --data $(DATA) --noise --drop --fs --json > build/evaluate/$$task.json || exit 1; done

release-models: setup
	@test -n '$(KEY)' || { echo 'give the private key: make release-models KEY=/path/to/key.pem'; exit 2; }
	$(BIN)/python -m training.release --key '$(KEY)'

lock:
	$(LOCK) --extra source --output-file requirements/run.txt
	$(LOCK) --extra source --extra clinic --output-file requirements/site.txt
	$(LOCK) --extra source --extra clinic --extra sim --output-file requirements/demo.txt
	$(LOCK) --extra source --extra clinic --extra sim --extra captures --extra test --extra check --output-file requirements/dev.txt

clean:
	rm -rf $(VENV) build
