# make install | demo | test | test-ray | browser | lint | clean  (each works on a fresh machine and twice in a row)
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-ray browser lint clean

install: $(STAMP)

# torch first and pinned: a bare "torch" would pull gigabytes of CUDA on machines without a GPU.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[demo,dev]" -c constraints.txt
	touch $(STAMP)

demo: install
	$(BIN)/longtail demo --out runs/demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q --noconftest tests/contracts/test_layers.py

# The tests open the report in a browser. Without one, and without a way to get one, those tests are skipped.
browser: install
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get install -y -qq chromium >/dev/null 2>&1; } \
	|| PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT=10000 $(BIN)/python -m playwright install chromium >/dev/null 2>&1 \
	|| echo "no Chromium found, and none could be installed: the tests that open the report in a browser are skipped"

test: lint browser
	$(BIN)/pytest -n 2 --dist worksteal

# The tests that `make test` skips, as they need Ray and a local S3 server.
test-ray: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target $(VENV)/ray -r requirements-ray.txt
	PYTHONPATH=$(CURDIR)/$(VENV)/ray $(BIN)/pytest -n 2 tests/test_ray_cluster.py tests/experiments/test_grid_ray.py \
	  tests/predict/test_ray_pipeline.py tests/predict/test_ray_nodes.py tests/predict/test_remote.py tests/predict/test_remote_output.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
