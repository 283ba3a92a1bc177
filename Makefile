# make study                  the long-sequence study, from nothing to reports/long_sequences/index.html
# make study SWEEP=smoke      any other file in sweeps/
# make test                   all tests, in a quarter of an hour on two cores
# make test-fast              those that take little, in about two minutes
# make mutants                edit the source wrongly in small ways, and see a test fail for each
# make soak                   kill runs and sweeps for ten minutes and compare them with untouched ones
# make cluster-test           the tests that need a cluster, on a SLURM that it starts here (Debian, root)
# make bench                  measure a step of each arm, to benchmarks/bench.txt, on an otherwise idle machine
# make bench-peers            the same and JoeyNMT, which is installed into .bench from the package index
# make bench-opennmt          training steps of ours and of OpenNMT-py, installed likewise
# make bench-yoyodyne DATA=D  whole runs of ours and of Yoyodyne, on D/fre/*.tsv of SIGMORPHON 2020
# make docs                   the documentation, to docs/_build/index.html; a warning is an error
# make check                  lint, formatting, types, and the order and size of packages, files and functions
# make results                copy the report of a study to results/, and write RESULTS.md and the studies' pages

PYTHON ?= python3
SWEEP ?= long_sequences
BIN = .venv/bin
# Three processes, since tests of services wait a good part of their time; the runs of a test file are made once.
TWO_CORES = --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: study test test-fast mutants soak cluster-test bench bench-peers bench-opennmt bench-yoyodyne check docs results clean

study: .venv/installed
	@status=0; $(BIN)/attnspan-train sweep=$(SWEEP) || status=$$?; \
	test $$status -ge 2 || $(BIN)/attnspan-report @runs/$(SWEEP).txt --out reports/$(SWEEP) --wandb as-runs || status=$$?; \
	exit $$status

test: .venv/installed-dev
	$(BIN)/python -m pytest $(TWO_CORES)

test-fast: .venv/installed-dev
	$(BIN)/python -m pytest $(TWO_CORES) -m "not slow"

mutants: .venv/installed-dev
	$(BIN)/python -m tests.mutants

soak: .venv/installed-dev
	$(BIN)/python -m tests.soak > benchmarks/soak.txt.new
	mv benchmarks/soak.txt.new benchmarks/soak.txt

cluster-test: .venv/installed-dev
	tests/slurm/cluster.sh start .slurm
	@trap : INT TERM; status=0; SLURM_CONF=$(CURDIR)/.slurm/slurm.conf ATTNSPAN_CLUSTER_TEST=1 \
	$(BIN)/python -m pytest tests/sweeps/test_slurm.py tests/training/test_ddp.py || status=$$?; \
	tests/slurm/cluster.sh stop .slurm; exit $$status

bench: .venv/installed-dev
	$(BIN)/python benchmarks/bench.py --json benchmarks/bench.json > benchmarks/bench.txt.new
	mv benchmarks/bench.txt.new benchmarks/bench.txt

bench-peers: .venv/installed-dev .bench/joeynmt
	$(BIN)/python benchmarks/bench.py --joeynmt .bench/joeynmt/bin/python --json benchmarks/bench.json \
	  > benchmarks/bench.txt.new
	mv benchmarks/bench.txt.new benchmarks/bench.txt

bench-opennmt: .venv/installed-dev .bench/opennmt
	$(BIN)/python benchmarks/bench.py --what train --vocabularies 100 --opennmt .bench/opennmt/bin/python \
	  --arms plain luong_general_feeding bahdanau > benchmarks/bench_opennmt.txt.new
	mv benchmarks/bench_opennmt.txt.new benchmarks/bench_opennmt.txt

bench-yoyodyne: .venv/installed-dev .bench/yoyodyne
	$(BIN)/python benchmarks/bench_yoyodyne.py .bench/yoyodyne/bin/python "$(DATA)" > benchmarks/bench_yoyodyne.txt.new
	mv benchmarks/bench_yoyodyne.txt.new benchmarks/bench_yoyodyne.txt

.bench/yoyodyne:  # its torchvision may be built for another torch, and then nothing starts
	$(PYTHON) -m venv $@.new
	$@.new/bin/pip install --quiet --constraint constraints.txt yoyodyne==0.5.27 torch
	$@.new/bin/pip uninstall --quiet --yes torchvision
	rm -rf $@ && mv $@.new $@

.bench/opennmt:  # later releases need a torch older than ours
	$(PYTHON) -m venv $@.new
	$@.new/bin/pip install --quiet OpenNMT-py==3.0.4 torch==2.13.0 'setuptools<81'
	rm -rf $@ && mv $@.new $@

.bench/joeynmt:  # it needs pkg_resources and importlib_metadata without declaring them
	$(PYTHON) -m venv $@.new
	$@.new/bin/pip install --quiet joeynmt==2.3.0 torch==2.13.0 'setuptools<81' importlib_metadata
	rm -rf $@ && mv $@.new $@

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_house.py

docs: .venv/installed-dev
	$(BIN)/python -m sphinx -n -W --keep-going -q -b html docs docs/_build

results: reports/$(SWEEP)/report.md
	cd reports && for at in $$(dirname $$(find $(SWEEP) -name report.md)); do \
	  mkdir -p ../results/$$at && cp $$at/*.md $$at/*.csv $$at/*.png $$at/*.svg ../results/$$at/ || exit; \
	done
	$(BIN)/python results/make_pages.py

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fast]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
