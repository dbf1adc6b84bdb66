#!/bin/sh
# Ends with the names of the Debian packages that `make test-arm` needs and that are missing here.
missing=
need() { command -v "$1" >/dev/null || missing="$missing $2"; }
need qemu-aarch64-static qemu-user-static
need qemu-aarch64 qemu-user
need gcc gcc
need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
need apt-get apt
need dpkg-deb dpkg
need taskset util-linux
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
[ -z "$missing" ] || { echo "make test-arm needs packages that are not installed; on Debian or Ubuntu: apt-get install$missing" >&2; exit 69; }
