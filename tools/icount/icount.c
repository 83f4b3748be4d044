// A QEMU plugin that counts executed instructions: those between a call of the firmware's
// `count_start` and the next call of its `count_stop`, both of which must be one instruction long.
// Each count is printed on standard error as "instructions N".
//
// Works on every guest architecture, because QEMU reads the two names from the image's symbols. Only
// calls that all plugin interfaces since QEMU 5 share are used, and declared here, so that no QEMU
// headers are needed; build.sh picks the number of the interface.

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { NO_REGISTERS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static uint64_t executed;
static uint64_t executed_at_start;

// QEMU translates straight runs of instructions (translation blocks) and executes each as a whole;
// so one addition per block is exact. A marked function returns, hence ends its block, hence is the
// last instruction added so far when its own callback runs.
static void on_block(unsigned cpu, void *instructions) {
    (void)cpu;
    executed += (uintptr_t)instructions;
}

static void on_start(unsigned cpu, void *unused) {
    (void)cpu, (void)unused;
    executed_at_start = executed;
}

static void on_stop(unsigned cpu, void *unused) {
    (void)cpu, (void)unused;
    fprintf(stderr, "instructions %" PRIu64 "\n", executed - executed_at_start - 1);
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    size_t n = qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, NO_REGISTERS, (void *)n);
    struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(block, n - 1);
    const char *symbol = qemu_plugin_insn_symbol(last);
    if (symbol && !strcmp(symbol, "count_start"))
        qemu_plugin_register_vcpu_insn_exec_cb(last, on_start, NO_REGISTERS, NULL);
    else if (symbol && !strcmp(symbol, "count_stop"))
        qemu_plugin_register_vcpu_insn_exec_cb(last, on_stop, NO_REGISTERS, NULL);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
