/* The board: MPS2 with the AN386 (Cortex-M4F) image, as QEMU emulates it. Replace it by your own. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

/* Writes a string to the first UART. */
void print(const char *text);

/* Writes `len` bytes to the first UART. */
void print_bytes(const char *text, size_t len);

/* Writes a number to the first UART, in decimal. */
void print_number(int32_t number);

/* Ends the emulation with success (0) or failure. */
_Noreturn void leave(int failed);

#endif
