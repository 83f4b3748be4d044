#!/bin/sh
# Cargo's runner: `run.sh <qemu> <options of the board> -kernel <image>`. The image reads standard
# input and writes standard output. With ICOUNT set to the library built from tools/icount, the
# instructions of each inference are printed on standard error. A firmware that does not end is killed
# after LIMIT seconds, 600 unless it says otherwise, with status 124.
exec timeout "${LIMIT:-600}" "$@" -display none -serial none -monitor none -semihosting-config enable=on,target=native \
    ${ICOUNT:+-plugin "$ICOUNT"}
