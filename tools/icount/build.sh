#!/bin/sh
# Builds the counting plugin for the QEMU that is installed: `build.sh <library to write>`.
set -eu
here=$(dirname "$0")
release=$(qemu-system-arm --version | sed -n '1s/.*version \([0-9]*\)\.\([0-9]*\)\..*/\1 \2/p')
# QEMU 9.0 dropped the first plugin interface; the third, of 9.1, hands out an instruction's bytes
# another way. Later ones only add to it.
case $release in
    [0-8]\ *) interface=1 ;;
    9\ 0) interface=2 ;;
    *) interface=3 ;;
esac
exec cc -O2 -Wall -Wextra -Werror -fPIC -shared -fvisibility=hidden \
    -DQEMU_PLUGIN_VERSION="$interface" -o "$1" "$here/icount.c"
