// A QEMU plugin that counts what the firmware executes between a call of its `count_start` and the
// next call of its `count_stop`, both of which must be one instruction long and are not counted. Each
// such region is reported on standard error, one line per figure:
//
//     instructions N        executed instructions, exact
//     code_bytes N          distinct bytes of code among them, exact
//     cortex_m4_cycles N    only on Arm: an estimate, see below
//
// With the argument `profile=FILE`, FILE also gets a table of each region: instructions by function.
//
// The cycles are those of a Cortex-M4 by table 3-1 of its technical reference manual, with memory that
// never waits: 1 per instruction, but
//
//     LDR, LDRB, LDRH, ...       2, and 1 right after another such load, a store or an LDRD
//     LDRD, STRD                 3
//     LDM, STM, PUSH, POP of n   n + 1
//     MLA, MLS                   2
//     SDIV, UDIV                 7 (2 to 12, by their operands)
//     IT                         0: folded into the instruction before
//     anything that branches     2 more if it does (1 to 3, by what it meets)
//
// Nobody compared this with a real core. Floating point counts as 1 each, flash is as fast as RAM, and
// code of another architecture (ARMv6-M, Helium) is counted as if an M4 ran it.
//
// Counting works on Arm's M profile and on RISC-V: QEMU reads the two names from the image's symbols,
// and lengths and classes of instructions are read from their bytes, so that neither QEMU's
// disassembler nor its sizes are relied on (QEMU 7.2 reports too long ones next to the end of a page).
// What is used of the plugin interface is declared here, so that no QEMU headers are needed; build.sh
// picks the number of the interface.

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_info {
    const char *target_name;
    // More follows.
};
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { NO_REGISTERS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
#if QEMU_PLUGIN_VERSION < 3
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
#else
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
#endif

EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

// An instruction: its size in bytes and its halfwords, of which a short one has no second.
struct code {
    unsigned size, first, second;
};

// A straight run of instructions, which QEMU translates at once and executes as a whole.
struct block {
    uint64_t start, end;
    uint64_t instructions;
    // Of one execution whose last instruction does not branch.
    uint64_t cycles;
    // In the current region.
    uint64_t executions;
    const char *symbol;
};

static bool is_arm;
static FILE *profile;

static bool counting;
static uint64_t instructions, cycles;
// The block that was executed last in the region, if there is one.
static const struct block *previous;
// The blocks of the region.
static struct block **touched;
static size_t n_touched, capacity;
static unsigned region;

static struct code code_of(const struct qemu_plugin_insn *instruction) {
#if QEMU_PLUGIN_VERSION < 3
    const uint8_t *bytes = qemu_plugin_insn_data(instruction);
#else
    uint8_t bytes[4];
    qemu_plugin_insn_data(instruction, bytes, sizeof bytes);
#endif
    struct code code = {.first = bytes[0] | bytes[1] << 8};
    code.size = (is_arm ? code.first >= 0xe800 : (code.first & 3) == 3) ? 4 : 2;
    if (code.size == 4)
        code.second = bytes[2] | bytes[3] << 8;
    return code;
}

// What a Thumb instruction costs on a Cortex-M4 unless it branches. `paired` says whether the one before
// lets a load start early, and is set for the one after.
static unsigned m4_cycles(struct code code, bool *paired) {
    unsigned a = code.first, b = code.second;
    bool load = false, store = false, early = *paired;
    *paired = false;
    if (code.size == 2) {
        if ((a & 0xff00) == 0xbf00 && (a & 0x000f))
            return 0; // IT
        if ((a & 0xf600) == 0xb400)
            return 1 + __builtin_popcount(a & 0x01ff); // PUSH, POP
        if ((a & 0xf000) == 0xc000)
            return 1 + __builtin_popcount(a & 0x00ff); // STM, LDM
        if ((a & 0xf000) == 0x5000) { // by register offset: three stores, five loads
            load = (a & 0x0e00) >= 0x0600;
            store = !load;
        } else if (a >= 0x6000 && a < 0xa000) { // by immediate offset
            load = a & 0x0800;
            store = !load;
        } else {
            load = (a & 0xf800) == 0x4800; // by the program counter
        }
    } else {
        if ((a & 0xfe40) == 0xe800)
            return 1 + __builtin_popcount(b); // LDM, STM
        if ((a & 0xfe40) == 0xe840 && (a & 0x0120)) { // LDRD, STRD
            *paired = a & 0x0010;
            return 3;
        }
        if ((a & 0xffd0) == 0xfb90)
            return 7; // SDIV, UDIV
        if ((a & 0xfff0) == 0xfb00 && ((b & 0x00f0) == 0x0010 || ((b & 0x00f0) == 0 && b < 0xf000)))
            return 2; // MLS, MLA; with a sum of register 15 it is MUL
        if ((a & 0xfe00) == 0xf800) {
            load = a & 0x0010;
            store = !load;
        }
    }
    *paired = load || store;
    return load && !early ? 2 : 1;
}

static int by_address(const void *a, const void *b) {
    const struct block *x = *(struct block *const *)a, *y = *(struct block *const *)b;
    return (x->start > y->start) - (x->start < y->start);
}

static int by_symbol(const void *a, const void *b) {
    const struct block *x = *(struct block *const *)a, *y = *(struct block *const *)b;
    return strcmp(x->symbol, y->symbol);
}

// Bytes of code that were executed: blocks overlap where one is entered in its middle.
static uint64_t code_bytes(void) {
    uint64_t bytes = 0, end = 0;
    qsort(touched, n_touched, sizeof *touched, by_address);
    for (size_t i = 0; i < n_touched; i++) {
        const struct block *block = touched[i];
        if (block->end <= end)
            continue;
        bytes += block->end - (block->start > end ? block->start : end);
        end = block->end;
    }
    return bytes;
}

static void write_profile(void) {
    fprintf(profile, "region %u\n", region);
    qsort(touched, n_touched, sizeof *touched, by_symbol);
    uint64_t sum = 0;
    for (size_t i = 0; i < n_touched; i++) {
        sum += touched[i]->executions * touched[i]->instructions;
        if (i + 1 == n_touched || strcmp(touched[i]->symbol, touched[i + 1]->symbol)) {
            fprintf(profile, "%12" PRIu64 " %s\n", sum, touched[i]->symbol);
            sum = 0;
        }
    }
    fflush(profile);
}

static void on_block(unsigned cpu, void *data) {
    (void)cpu;
    struct block *block = data;
    if (!counting)
        return;
    if (block->executions++ == 0) {
        if (n_touched == capacity) {
            capacity = capacity ? 2 * capacity : 256;
            touched = realloc(touched, capacity * sizeof *touched);
            if (!touched)
                abort();
        }
        touched[n_touched++] = block;
    }
    instructions += block->instructions;
    cycles += block->cycles;
    if (previous && previous->end != block->start)
        cycles += 2;
    previous = block;
}

static void on_start(unsigned cpu, void *unused) {
    (void)cpu, (void)unused;
    counting = true;
    instructions = cycles = 0;
    previous = NULL;
}

static void on_stop(unsigned cpu, void *unused) {
    (void)cpu, (void)unused;
    counting = false;
    fprintf(stderr, "instructions %" PRIu64 "\n", instructions);
    fprintf(stderr, "code_bytes %" PRIu64 "\n", code_bytes());
    if (is_arm)
        fprintf(stderr, "cortex_m4_cycles %" PRIu64 "\n", cycles);
    if (profile)
        write_profile();
    while (n_touched)
        touched[--n_touched]->executions = 0;
    region++;
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb) {
    (void)id;
    size_t n = qemu_plugin_tb_n_insns(tb);
    struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(tb, 0), *last = qemu_plugin_tb_get_insn(tb, n - 1);
    const char *symbol = qemu_plugin_insn_symbol(first);
    // A marked function is one block: a call begins it and its only instruction ends it.
    if (symbol && !strcmp(symbol, "count_start")) {
        qemu_plugin_register_vcpu_insn_exec_cb(first, on_start, NO_REGISTERS, NULL);
        return;
    }
    if (symbol && !strcmp(symbol, "count_stop")) {
        qemu_plugin_register_vcpu_insn_exec_cb(first, on_stop, NO_REGISTERS, NULL);
        return;
    }
    // Lives as long as QEMU, which does not say when it drops a block.
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        abort();
    block->start = qemu_plugin_insn_vaddr(first);
    block->end = qemu_plugin_insn_vaddr(last) + code_of(last).size;
    block->instructions = n;
    block->symbol = symbol ? symbol : "?";
    bool paired = false;
    for (size_t i = 0; is_arm && i < n; i++)
        block->cycles += m4_cycles(code_of(qemu_plugin_tb_get_insn(tb, i)), &paired);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, NO_REGISTERS, block);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv) {
    is_arm = !strcmp(info->target_name, "arm");
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "profile=", 8) || !(profile = fopen(argv[i] + 8, "w"))) {
            fprintf(stderr, "icount: %s: not profile=FILE with a file that can be written\n", argv[i]);
            return 1;
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
