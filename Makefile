# The front door: every target is one call of CMake, CTest or a script. `make help` lists them.
BUILD := build/release
VLENS := $(BUILD)/bin/vlens
JOBS  := $(shell nproc)
# Ninja's own line: how far, of how much, how long.
export NINJA_STATUS = [%f/%t %es] 

.PHONY: all help deps demo test check test-all asan tsan fuzz-short real peers wheel python-test results dist deb \
        format golden lint install \
        clean configure build

all: ## build the program and the library (release)
	@tools/install-deps.sh --check
	@$(MAKE) --no-print-directory configure
	@cmake --build $(BUILD) -j $(JOBS) --target program
	@echo "built: $(VLENS)    next: make demo"

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

deps: ## install missing Debian packages (asks sudo)
	@tools/install-deps.sh

demo: deps ## install what is missing, then cache, train, evaluate, export and read the demo model
	@$(MAKE) --no-print-directory all
	@tools/demo.sh $(VLENS)

test: deps ## install what is missing, then run every test that belongs to a change (under 12 minutes on two cores)
	@tools/install-deps.sh --group test
	@$(MAKE) --no-print-directory build
	@ctest --test-dir $(BUILD) -j $(JOBS) --output-on-failure -LE long

check: configure ## what you run every minute: format, lint of what you changed, unit tests (under 60 s)
	@cmake --build $(BUILD) -j $(JOBS) --target check_programs
	@ctest --test-dir $(BUILD) -j $(JOBS) --output-on-failure -L '^(style|lint|base|unit|model)$$' -LE long

test-all: ## make test, the long tests, and everything again under sanitizers; before a release
	@tools/install-deps.sh --group long
	@$(MAKE) --no-print-directory test asan tsan
	@ctest --test-dir $(BUILD) -j $(JOBS) --output-on-failure -L long

asan: deps ## build and test with AddressSanitizer and UBSan
	@cmake --preset asan >/dev/null
	@cmake --build --preset asan -j $(JOBS)
	@ASAN_OPTIONS=detect_leaks=1 ctest --test-dir build/asan -j $(JOBS) --output-on-failure -LE "long|bench"

tsan: deps ## build and test with ThreadSanitizer (clang, its OpenMP runtime and archer)
	@tools/install-deps.sh clang libclang-rt-dev libomp-dev llvm
	@cmake --preset tsan >/dev/null
	@cmake --build --preset tsan -j $(JOBS)
	@ctest --test-dir build/tsan -j $(JOBS) --output-on-failure -L "^(base|ops|unit|model|eval|threads)$$" -LE long

fuzz-short: deps ## ten minutes of fuzzing over the readers of strangers' files (clang)
	@tools/install-deps.sh clang libclang-rt-dev llvm
	@cmake --preset fuzz >/dev/null
	@cmake --build --preset fuzz -j $(JOBS)
	@tests/fuzz/run.sh build/fuzz 600

real: deps ## a real language model on real text: SmolLM2-135M (needs pip and apt)
	@$(MAKE) --no-print-directory all
	@tools/real/run.sh $(VLENS)

peers: deps ## lenses to and from tuned-lens, NumPy, HDF5 (a Python environment in build/peers; needs pip)
	@$(MAKE) --no-print-directory all
	@tests/peers/run.sh $(VLENS)

wheel: deps ## the Python package as a wheel, in build/wheel (needs pip)
	@tools/wheel.sh build/wheel

python-test: wheel ## the wheel in a fresh environment: its tests, types, docstrings, demo (pip fetches torch)
	@tests/python/run.sh "$$(ls -t build/wheel/vlens-*.whl | head -1)"

format: ## format the sources
	@tools/check_format.sh --fix

golden: all ## write anew what the command line prints (tests/cli/golden, docs/reference/options.md); read the diff before you commit it
	@tests/cli/golden.py $(VLENS) . --write tests/cli/golden/*.md
	@$(VLENS) help --markdown >docs/reference/options.md

lint: configure ## clang-tidy over the whole of the library and the program
	@tools/check_tidy.sh $(BUILD) --all

install: all ## install under /usr/local (DESTDIR and --prefix as CMake knows them)
	@cmake --install $(BUILD)

dist: ## a tarball of the sources, in build/dist
	@tools/dist.sh build/dist

results: ## the measured tables of the documents, from the files in docs/results/data
	@tools/results.py

deb: all ## Debian packages, in build/deb
	@tools/package.sh $(BUILD) build/deb

clean: ## remove all builds
	@rm -rf build out

configure: # a second or two where nothing changed
	@mkdir -p build
	@cmake --preset release >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }

build: configure
	@cmake --build $(BUILD) -j $(JOBS)
