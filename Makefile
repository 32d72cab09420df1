# Everything runs in .venv, which tools/setup makes ready, Debian packages included; it is
# called each time and takes no time when nothing has changed.

# The distribution's Python: the bindings of libvirt and SELinux exist for no other.
PYTHON ?= /usr/bin/python3
export PYTHON

BIN := .venv/bin
# Not "python -m pytest": that puts the checkout on the path, and cli/ would be importable
# under a name that it does not have once installed.
PYTEST := $(BIN)/pytest
# On every processor, the fast tests on one more as some only wait; JOBS=0 runs them in one
# process, as a debugger needs it.
JOBS :=
# More arguments for pytest: make test ARGS="-k level -x"
ARGS :=
# As part of a URI.
space := $() $()
HERE := $(subst $(space),%20,$(subst %,%25,$(CURDIR)))
SHELL_SCRIPTS := .ci/run tools/deb tools/docs tools/rpm tools/setup tools/tree tools/types \
    packaging/debian/postinst packaging/debian/prerm \
    tests/vm/build tests/vm/boot tests/vm/machine.inc
PYTHON_FILES := svirtlib cli tests

.PHONY: help demo test test-slow test-vm lint types bench coverage format wheel docs deb rpm clean venv

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

demo: ## show svirt-label at work on a made-up host and on made-up guests' XML
	@tools/setup run
	@printf '%s\n' \
	    '== A host with planted faults, played by libvirt'\''s own test driver' \
	    '   svirt-label check --exit-zero -c test://$(HERE)/svirtlib/demo/host.xml'
	@$(BIN)/svirt-label check --exit-zero -c "test://$(HERE)/svirtlib/demo/host.xml"
	@printf '%s\n' '' \
	    '== What "virsh dumpxml" printed for running guests with dynamic labels' \
	    '   svirt-label check --exit-zero --xml svirtlib/demo/dumpxml'
	@$(BIN)/svirt-label check --exit-zero --xml svirtlib/demo/dumpxml

test: ## run the tests that take seconds
	@tools/setup test
	$(PYTEST) -n $(or $(JOBS),$(shell expr $$(nproc) + 1)) -m "not slow and not vm and not bench" $(ARGS)

test-slow: ## run the long tests, and all laws on more examples
	@tools/setup slow
	SVIRT_HYPOTHESIS=slow $(PYTEST) -n $(or $(JOBS),auto) -m "slow and not vm" $(ARGS)

test-vm: ## run real guests in a virtual machine with SELinux enforcing (needs root)
	@tools/setup vm
	$(PYTEST) -n 0 -m vm -o faulthandler_timeout=1200 tests/vm $(ARGS)

lint: ## check style, formatting, Python 3.9 and the shell scripts
	@tools/setup lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/vermin --target=3.9- --violations --no-tips --quiet $(PYTHON_FILES)
	$(BIN)/shellcheck -x $(SHELL_SCRIPTS)

types: ## check types, the CLI's included
	@tools/setup lint
	tools/types

bench: ## measure
	@tools/setup slow
	@set -e; for script in tests/bench/bench_*.py; do \
	    echo "== $$script"; $(BIN)/python "$$script"; done

coverage: ## tell which lines the fast tests do not reach
	@tools/setup lint
	$(BIN)/coverage run $(PYTEST) -m "not slow and not vm and not bench" $(ARGS)
	$(BIN)/coverage report

format: ## bring all code into the common format
	@tools/setup lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: ## build the wheel into dist/
	@tools/setup test
	@# setuptools would pack what an older build left there.
	@rm -rf build/lib build/bdist.*
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

docs: ## build the man page, HTML and shell completions into build/docs
	@tools/setup docs
	@tools/docs

deb: ## build the Debian package into dist/
	@tools/setup docs
	@tools/deb

rpm: ## build the RPM and the source distribution into dist/ (needs rpmbuild)
	@tools/setup docs
	@tools/rpm

clean: ## remove all that was built, the virtual environment too
	rm -rf .venv build dist *.egg-info .coverage htmlcov
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find svirtlib cli tests -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@tools/setup test
