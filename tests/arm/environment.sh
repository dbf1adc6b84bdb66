#!/bin/sh
# Makes an aarch64 environment that runs here under qemu: environment.sh PYTHON WHEELHOUSE FOLDER SUITE VERSION [tests].
# PYTHON is that of this machine, SUITE a release of Debian, and VERSION its Python. With `tests`, pytest is installed too.
# Needs no root. Debian's packages come from its mirror and are checked by apt's signatures, Python's by the hashes in
# requirements/*.txt. FOLDER/venv/bin/python starts any program of the environment, also from inside: it is a script that
# this machine's kernel can run. QEMU_CPU chooses the processor. What edge-agent needs comes from WHEELHOUSE alone.
set -eu
python=$1 wheelhouse=$2 folder=$3 suite=$4 version=$5 tests=${6:-}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
root=$folder/root site=$folder/venv/lib/python$version/site-packages

if [ ! -e "$folder/root.done" ]; then
    echo "  Debian $suite, with Python $version for aarch64"
    state=$folder/apt
    rm -rf "$root" "$state"
    mkdir -p "$root" "$state/lists/partial" "$state/archives/partial"
    : >"$state/status" # nothing is installed there, so that apt downloads everything that Python needs
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$state/sources.list"
    apt() {
        apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Install-Recommends=false -o APT::Sandbox::User= \
            -o Debug::NoLocking=1 -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state" \
            -o "Dir::Etc::sourcelist=$state/sources.list" -o "Dir::Etc::sourceparts=$state/none" "$@"
    }
    apt update
    apt install --download-only -y "python$version" libstdc++6 >/dev/null
    for package in "$state"/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
    [ -e "$root/lib" ] || ln -s usr/lib "$root/lib" # since trixie, this link is not in the packages
    rm -rf "$state"
    touch "$folder/root.done"
fi

rm -rf "$folder/venv"
mkdir -p "$folder/venv/bin" "$site"
printf 'home = %s/usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$root" "$version" >"$folder/venv/pyvenv.cfg"
cat >"$folder/venv/bin/python" <<END
#!/bin/sh
exec qemu-aarch64-static -L '$root' -0 "\$0" '$root/usr/bin/python$version' "\$@"
END
chmod +x "$folder/venv/bin/python"

install() {
    "$python" -m pip --disable-pip-version-check --quiet install --no-deps --only-binary :all: --implementation cp --python-version "$version" \
        --platform manylinux_2_34_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 --target "$site" --upgrade "$@"
}
echo "  edge-agent for Python $version, from the wheelhouse alone"
needed() { "$python" requirements/for_device.py "$1" aarch64 "$version"; }
needed requirements/device.txt | sed 's/ .*//' >"$folder/wheelhouse.txt"
install --no-index --find-links "$wheelhouse" -r "$folder/wheelhouse.txt" llama-cpp-python foggen-edge-agent
for script in "$site"/bin/*; do # pip wrote the path of this machine's Python into them
    sed "1s|^#!.*|#!$folder/venv/bin/python|" "$script" >"$folder/venv/bin/${script##*/}"
    chmod +x "$folder/venv/bin/${script##*/}"
done
[ "$tests" = tests ] || exit 0
echo '  what the tests need in addition'
{ needed requirements/runtime.txt | grep -E '^(gguf|scipy|requests|urllib3|charset-normalizer)=='; needed requirements/dev.txt | grep -E '^(pytest|hypothesis|iniconfig|sortedcontainers|pygments)=='; } >"$folder/tests.txt"
install --require-hashes -r "$folder/tests.txt"
