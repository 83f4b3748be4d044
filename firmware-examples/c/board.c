/* Start-up code, the first UART and the way out. */
#include "board.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define CPACR REGISTER(0xe000ed88)
#define UART_DATA REGISTER(0x40004000)
#define UART_STATE REGISTER(0x40004004)
#define UART_CONTROL REGISTER(0x40004008)
#define UART_BAUD_DIVIDER REGISTER(0x40004010)

int main(void);

/* From mps2.ld. */
extern uint32_t data_start[], data_end[], data_load[], bss_start[], bss_end[], stack_top[];

static void fault(void)
{
    leave(1);
}

/* The library is compiled for the FPU's registers, so it must be on before anything of it runs. */
static void reset(void)
{
    CPACR |= 0xf << 20;
    __asm__ volatile("dsb\n isb");
    for (size_t i = 0; i < (size_t)(data_end - data_start); i++)
        data_start[i] = data_load[i];
    for (uint32_t *word = bss_start; word < bss_end; word++)
        *word = 0;
    UART_BAUD_DIVIDER = 16;
    UART_CONTROL = 1;
    main();
    leave(0);
}

/* The first words of flash: the stack, and what runs at reset and for the faults. */
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*reset)(void);
    void (*faults[14])(void);
} vectors = {stack_top, reset, {fault, fault, fault, fault, fault}};

static void put(char c)
{
    while (UART_STATE & 1) {
    }
    UART_DATA = (unsigned char)c;
}

void print(const char *text)
{
    while (*text)
        put(*text++);
}

void print_bytes(const char *text, size_t len)
{
    while (len--)
        put(*text++);
}

void print_number(int32_t number)
{
    char digits[10];
    size_t n = 0;
    uint32_t rest = number < 0 ? -(uint32_t)number : (uint32_t)number;

    if (number < 0)
        put('-');
    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    while (n--)
        put(digits[n]);
}

/* Semihosting's SYS_EXIT: the emulator ends with 0 for "application exit", with 1 for a run-time error. */
_Noreturn void leave(int failed)
{
    register uint32_t operation __asm__("r0") = 0x18;
    register uint32_t reason __asm__("r1") = failed ? 0x20023 : 0x20026;

    for (;;)
        __asm__ volatile("bkpt 0xab" : "+r"(operation) : "r"(reason) : "memory");
}
