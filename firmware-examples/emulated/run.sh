#!/bin/sh
# Cargo's runner: `run.sh <qemu> <options of the board> -kernel <image>`. The image reads standard
# input and writes standard output. With ICOUNT set to the library built from tools/icount, the
# instructions of each inference are printed on standard error.
exec "$@" -display none -serial none -monitor none -semihosting-config enable=on,target=native \
    ${ICOUNT:+-plugin "$ICOUNT"}
