#!/bin/sh
# Builds the counting plugin for the QEMU that is installed: `build.sh <library to write>`.
set -eu
here=$(dirname "$0")
release=$(qemu-system-arm --version | sed -n '1s/.*version \([0-9]*\)\..*/\1/p')
# QEMU 9 dropped the first plugin interface and reads the second; nothing used here changed.
interface=$([ "$release" -lt 9 ] && echo 1 || echo 2)
exec cc -O2 -Wall -Wextra -Werror -fPIC -shared -fvisibility=hidden \
    -DQEMU_PLUGIN_VERSION="$interface" -o "$1" "$here/icount.c"
