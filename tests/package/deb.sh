#!/bin/sh
# The Debian packages in a clean Debian: install, run the demo as a person would, with and without MPI, remove, and
# nothing is left. Needs root and debootstrap; the clean root is made once, in FOLDER/root. Usage: deb.sh SOURCE BUILD FOLDER
set -eu
source=$1
build=$2
folder=$3
root=$folder/root
mirror=${VLENS_DEBIAN_MIRROR:-$(sed -n 's/^\(deb\|URIs:\) *\(\[[^]]*\] *\)\{0,1\}\(http[^ ]*debian\)\/\{0,1\}\( .*\)\{0,1\}$/\3/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -1)}
die() { echo "FAILED: $*"; exit 1; }
[ "$(id -u)" -eq 0 ] || die "root is needed for a clean root"
mkdir -p "$folder"

"$source/tools/package.sh" "$build" "$folder/deb"
if [ ! -e "$folder/root.ready" ]; then
    rm -rf "$root"
    debootstrap --variant=minbase bookworm "$root" "${mirror:-http://deb.debian.org/debian}" >"$folder/debootstrap.log" 2>&1 ||
        { tail -5 "$folder/debootstrap.log"; die "debootstrap"; }
    touch "$folder/root.ready"
fi
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive \
    http_proxy="${http_proxy:-}" https_proxy="${https_proxy:-}" GOMP_SPINCOUNT=3000 "$@"; }
finish() { umount "$root/proc" 2>/dev/null || true; }
trap finish EXIT
mount -t proc proc "$root/proc"
listing() { (cd "$root" && find usr etc opt lib -xdev -not -path 'usr/share/mime*' -not -name '*.cache' -not -path 'etc/alternatives*' | sort); }

echo "== lintian"
lintian --fail-on error,warning "$folder"/deb/*.deb || die "lintian"

echo "== install in a clean root"
# the mirror may be a snapshot, and the clock another
inside apt-get -o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false update -qq >"$folder/update.log" 2>&1 || true
rm -rf "$root/packages" "$root/tmp/demo" && cp -r "$folder/deb" "$root/packages"
# a run that was cut off left its packages there
[ ! -e "$root/usr/bin/vlens" ] || inside sh -c 'apt-get purge -y -qq "vlens*"' >/dev/null 2>&1
[ ! -e "$root/usr/bin/vlens" ] || die "the clean root has a vlens already"
inside sh -c 'apt-get install -y -qq --no-install-recommends /packages/vlens_*.deb /packages/vlens-examples_*.deb' >"$folder/install.log" 2>&1 ||
    { tail -5 "$folder/install.log"; die "apt-get install"; }
inside vlens --version | head -1
inside vlens doctor >"$folder/doctor.txt" || { cat "$folder/doctor.txt"; die "vlens doctor"; }

echo "== the demo, from the package's own data"
mkdir -p "$root/tmp/demo"
inside sh -c 'cd /tmp/demo && sed -e "s/epochs: 12 .*/epochs: 1/" -e "/baseline/d; /^eval:/d" /usr/share/vlens/demo/demo.yaml >demo.yaml &&
    vlens train demo.yaml --quiet --set data.max_samples=80 && vlens eval demo.yaml --quiet --set data.max_samples=80' \
    >"$folder/demo.txt" || { tail -3 "$folder/demo.txt"; die "the demo"; }
grep -q 'class all-text' "$folder/demo.txt" || die "the demo printed no table"
# without the plug-in for several processes, a launcher is told so
inside env OMPI_COMM_WORLD_SIZE=2 vlens train /tmp/demo/demo.yaml 2>&1 | grep -q 'without MPI' || die "no word about MPI"
inside vlens train /tmp/demo/demo.yaml --device cuda 2>&1 | grep -qE 'cuda' || die "no word about CUDA"

if ls "$folder"/deb/vlens-mpi_*.deb >/dev/null 2>&1; then
    echo "== with vlens-mpi"
    inside sh -c 'apt-get install -y -qq --no-install-recommends /packages/vlens-mpi_*.deb openmpi-bin' \
        >"$folder/mpi.log" 2>&1 || { tail -5 "$folder/mpi.log"; die "vlens-mpi"; }
    inside sh -c 'cd /tmp/demo && mpirun --allow-run-as-root --oversubscribe -n 2 vlens train demo.yaml --quiet --threads 1 \
        --set data.max_samples=80 --set output=two' >"$folder/two.txt" 2>&1 || { tail -3 "$folder/two.txt"; die "two processes"; }
fi
if ls "$folder"/deb/vlens-cuda_*.deb >/dev/null 2>&1; then
    echo "== with vlens-cuda, which finds no driver here"
    inside sh -c 'dpkg -i /packages/vlens-cuda_*.deb' >/dev/null || die "vlens-cuda"
    inside vlens doctor >/dev/null || die "vlens doctor with the CUDA plug-in"
fi

echo "== remove"
inside sh -c 'apt-get purge -y -qq "vlens*"' >"$folder/remove.log" 2>&1 || { tail -5 "$folder/remove.log"; die "purge"; }
left=$(listing | grep -i vlens || true)
[ -z "$left" ] || die "left behind: $left"
rm -rf "$root/packages" "$root/tmp/demo"
echo "deb: installs, runs, and leaves nothing"
