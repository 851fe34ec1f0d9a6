/* A plugin of qemu-aarch64 that counts the instructions which a program executes, by class, and prints a line with all counts
 * at the end. Counters are not atomic: exact for programs of one thread.
 *
 *   gcc -O2 -shared -fPIC -o mix.so mix.c
 *   qemu-aarch64 -plugin ./mix.so PROGRAM
 *
 * qemu's header is no part of Debian's package, so what is used of its interface is declared here (version 1, qemu 5.0 on). */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, enum qemu_plugin_op, void *, uint64_t);
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);

EXPORT int qemu_plugin_version = 1;

enum kind { DOT, FMLA, VECTOR, VECTOR_LOAD, VECTOR_STORE, LOAD, STORE, BRANCH, INTEGER, KINDS };

static uint64_t count[KINDS];

static int is_load(uint32_t i, int vector) {
    uint32_t opc = i >> 22 & 3;
    if ((i & 0x3a000000) == 0x28000000) return opc & 1;                                   /* pairs */
    if ((i & 0x3b000000) == 0x18000000) return 1;                                         /* literals */
    if ((i & 0x3a000000) == 0x38000000) return opc != 0 && !(vector && opc == 2);         /* single registers */
    return opc & 1;                                                                       /* structures, exclusives */
}

/* The class of an instruction, by the encoding tables of the Arm Architecture Reference Manual, C4.1. The dot products are
 * SDOT, or, at the level without it, SMULL, SMLAL, SADALP and SADDLP. */
static enum kind kind_of(uint32_t i) {
    uint32_t group = i >> 25 & 15;
    if ((group & 5) == 4) {
        int vector = i >> 26 & 1;
        if (is_load(i, vector)) return vector ? VECTOR_LOAD : LOAD;
        return vector ? VECTOR_STORE : STORE;
    }
    if ((group & 14) == 10) return BRANCH;
    if ((group & 7) != 7) return INTEGER;
    if (((i & 0xbf20fc00) == 0x0e009400 || (i & 0xbf00f400) == 0x0f00e000) && (i >> 22 & 3) == 2) return DOT;
    if ((i & 0xbf20fc00) == 0x0e20c000 || (i & 0xbf20fc00) == 0x0e208000 || (i & 0xbfffbc00) == 0x0e602800) return DOT;
    if ((i & 0xbfa0fc00) == 0x0e20cc00 || (i & 0xbf80f400) == 0x0f801000) return FMLA;
    return VECTOR;
}

static void translated(plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    size_t instructions = qemu_plugin_tb_n_insns(block);
    for (size_t n = 0; n < instructions; n++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, n);
        uint64_t *counter = &count[kind_of(*(const uint32_t *)qemu_plugin_insn_data(instruction))];
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, QEMU_PLUGIN_INLINE_ADD_U64, counter, 1);
    }
}

static void print(plugin_id id, void *unused) {
    (void)id;
    (void)unused;
    for (int n = 0; n < KINDS; n++) fprintf(stderr, "%llu%c", (unsigned long long)count[n], n < KINDS - 1 ? ' ' : '\n');
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, print, NULL);
    return 0;
}
